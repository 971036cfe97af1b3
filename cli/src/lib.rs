//! redbutton, what people type.
