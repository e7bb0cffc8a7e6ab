//! What may keep a write from being marked.

/// What may have kept a write from being marked, counted since the tracker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Commands that went past the kernel's block layer (`SG_IO`, NVMe's own).
    pub passed_through: u64,
    /// Writes that failed, and may land late.
    pub failed: u64,
    /// Writes behind the end that the disk had at first.
    pub beyond: u64,
    /// Writes of more ranges than could be marked.
    pub overflowed: u64,
    /// Requests that were issued unseen, because the processor was in the program already. Where the other end of a write
    /// goes unseen, the sums tell.
    pub missed: u64,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            (self.passed_through, "commands past the block layer"),
            (self.failed, "failed writes"),
            (self.beyond, "writes beyond the end"),
            (self.overflowed, "discards of too many ranges"),
            (self.missed, "writes unseen"),
        ];
        let told: Vec<_> = all
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{what}: {count}"))
            .collect();
        f.write_str(&told.join(", "))
    }
}

impl Trouble {
    /// All of it.
    pub fn total(self) -> u64 {
        [self.passed_through, self.failed, self.beyond, self.overflowed, self.missed].iter().sum()
    }
}
