//! The controller as people and nodes meet it: real TLS on loopback, a real database, nodes that are simulated
//! behind the real link.

mod approvals;
mod approvals_by_hand;
mod attach;
mod bad_nodes;
mod crash;
mod durable;
mod keys;
mod lists;
mod merge;
mod node_keys;
mod old_state;
mod policy;
mod press;
mod refusals;
mod roots;
mod watch;
mod witness;
mod world;
