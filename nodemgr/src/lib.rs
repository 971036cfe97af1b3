//! On every node: slivers, holds, kill.
