//! The store on a real file: what it promises, and what it does when the disk, the file or the process fails.

mod common;
mod corrupt;
mod crash;
mod full_disk;
mod golden;
mod keys;
mod model;
mod orders;
mod records;
mod results;
mod schema;
