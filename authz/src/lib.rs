//! Who may do what: one pure table.
