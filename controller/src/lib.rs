//! The centre: people, orders, audit.
