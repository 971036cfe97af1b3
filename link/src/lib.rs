//! How a daemon at a site reaches the controller: dial out over mTLS, then serve.
