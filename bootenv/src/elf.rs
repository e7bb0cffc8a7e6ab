//! What a program needs to be started: its loader, its libraries, and the versions of their symbols.

use imager_units::{Context, Error, Result};
use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

type Header = FileHeader64<Endianness>;

/// A program or a library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// The loader; a static program has none.
    pub interpreter: Option<String>,
    /// The names of the libraries.
    pub needed: Vec<String>,
    /// Where it looks for them first.
    pub places: Vec<String>,
    /// The names of libraries that it opens while it runs, if they are there (the UAPI Group's note `.note.dlopen`).
    pub opened: Vec<String>,
    /// The versions it wants, each with the library that has to define it.
    pub wanted: BTreeSet<(String, String)>,
    /// The versions it defines.
    pub defined: BTreeSet<String>,
}

impl Elf {
    /// Reads a file; `None` if it is a script or data.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged or of another processor.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let bytes = std::fs::read(path).context(|| format!("reading {}", path.display()))?;
        if !bytes.starts_with(&object::elf::ELFMAG) {
            return Ok(None);
        }
        let damaged =
            |error| Error::with_source(imager_units::ErrorKind::Corrupt, path.display().to_string(), error);
        Self::parse(&bytes).map(Some).map_err(damaged)
    }

    fn parse(bytes: &[u8]) -> Result<Self, object::Error> {
        let header = Header::parse(bytes)?;
        let endian = header.endian()?;
        let mut elf = Self::default();
        for segment in header.program_headers(endian, bytes)? {
            if let Some(name) = segment.interpreter(endian, bytes)? {
                elf.interpreter = Some(text(name));
            }
        }
        let sections = header.sections(endian, bytes)?;
        if let Some((entries, link)) = sections.dynamic(endian, bytes)? {
            let strings = sections.strings(endian, bytes, link)?;
            for entry in entries {
                let tag = entry.tag32(endian).unwrap_or_default();
                if tag == DT_NEEDED {
                    elf.needed.push(text(entry.string(endian, strings)?));
                } else if tag == DT_RUNPATH || tag == DT_RPATH {
                    elf.places.extend(text(entry.string(endian, strings)?).split(':').map(str::to_owned));
                }
            }
        }
        if let Some((_, section)) = sections.section_by_name(endian, b".note.dlopen") {
            let mut notes = section.notes(endian, bytes)?.into_iter().flatten();
            while let Some(note) = notes.next().transpose()? {
                elf.opened.extend(opened(note.desc()));
            }
        }
        if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes)? {
            let strings = sections.strings(endian, bytes, link)?;
            while let Some((library, mut versions)) = libraries.next()? {
                while let Some(version) = versions.next()? {
                    let file = text(library.file(endian, strings)?);
                    elf.wanted.insert((file, text(version.name(endian, strings)?)));
                }
            }
        }
        if let Some((mut versions, link)) = sections.gnu_verdef(endian, bytes)? {
            let strings = sections.strings(endian, bytes, link)?;
            while let Some((_, mut names)) = versions.next()? {
                if let Some(name) = names.next()? {
                    elf.defined.insert(text(name.name(endian, strings)?));
                }
            }
        }
        Ok(elf)
    }
}

/// The names in such a note: JSON, `[{"soname":["libzstd.so.1"],…},…]`, and zeros behind it.
fn opened(note: &[u8]) -> Vec<String> {
    let end = note.iter().position(|byte| *byte == 0).unwrap_or(note.len());
    let note: Value = serde_json::from_slice(note.get(..end).unwrap_or_default()).unwrap_or_default();
    let features = note.as_array().into_iter().flatten();
    let names = features.flat_map(|feature| feature["soname"].as_array().into_iter().flatten());
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Elf, opened};
    use std::path::Path;

    #[test]
    fn a_note_names_what_is_opened_later() {
        let note = br#"[{"feature":"zstd","priority":"recommended","soname":["libzstd.so.1"]}]"#;
        assert_eq!(opened(&[note.as_slice(), b"\0\0"].concat()), ["libzstd.so.1"]);
        assert!(opened(b"no JSON").is_empty());
    }

    #[test]
    fn a_dynamic_program_names_its_loader_libraries_and_versions() {
        let elf = Elf::open(&std::env::current_exe().unwrap()).unwrap().unwrap();
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(elf.needed.iter().any(|name| name == "libc.so.6"));
        assert!(
            elf.wanted.iter().any(|(file, version)| file == "libc.so.6" && version.starts_with("GLIBC_2."))
        );
    }

    #[test]
    fn a_script_is_none_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(Elf::open(&path).unwrap(), None);
        std::fs::write(&path, b"\x7fELF\x02\x01\x01").unwrap();
        assert!(Elf::open(&path).is_err());
        assert!(Elf::open(Path::new("/nowhere/at/all")).is_err());
    }
}
