//! Who watches a build.

/// Is told what is being done.
pub trait Monitor: Sync {
    /// A step begins; a phrase such as "unpacking the kernel".
    fn step(&self, what: &str);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Monitor for Silent {
    fn step(&self, _what: &str) {}
}
