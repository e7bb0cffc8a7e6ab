//! What was written to a disk, by the kernel's own count.
