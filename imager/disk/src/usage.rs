//! Who uses a disk.
