//! What UEFI firmware was told to start, as a manifest keeps it: byte for byte, and in words.

use serde::{Deserialize, Serialize};

/// The firmware's boot settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uefi {
    /// Whether Secure Boot was enforced; `null` when the firmware did not say.
    pub secure_boot: Option<bool>,
    /// The numbers of the entries in the order in which they are tried (`BootOrder`).
    pub boot_order: Vec<u16>,
    /// The entries (`Boot####`).
    pub entries: Vec<BootEntry>,
}

/// One entry of the firmware's boot menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// Its number, the `####` of `Boot####`.
    pub number: u16,
    /// The `EFI_LOAD_OPTION`, base64: what counts. Everything below is read from it, for people.
    pub base64: String,
    /// What the menu shows.
    pub description: String,
    /// Whether the firmware starts it by itself.
    pub active: bool,
    /// The partition it starts from; `null` when it is not on one.
    pub partition: Option<BootPartition>,
    /// The file it starts, with `\` between its parts.
    pub file: Option<String>,
}

/// A partition as the firmware knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPartition {
    /// Its number in the table.
    pub number: u32,
    /// Where it starts, in logical sectors.
    pub start_lba: u64,
    /// How many it has.
    pub sectors: u64,
    /// Its GUID in upper case, or the signature of its MBR disk.
    pub id: String,
}
