//! The lab: the real daemons together, on real cgroups.
