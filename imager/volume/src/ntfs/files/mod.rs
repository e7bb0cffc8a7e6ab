//! The files of NTFS, read by the number of their record.
//!
//! Own rather than the crate `ntfs`, which reads neither compressed nor sparse streams. Content that Windows keeps in
//! another way (encrypted by EFS, packed by CompactOS, deduplicated, in a cloud) is refused, since its unnamed stream
//! is not what a program on Windows reads. As ntfs-3g: names of DOS and the filesystem's own files are not shown,
//! further streams are extended attributes `user.NAME`, and links and devices that ntfs-3g made are what it made them.
//! Records are not owned by anybody here: NTFS has security descriptors, which name nobody on this machine.

mod data;
mod directory;
mod facts;
mod lznt1;
mod name;
mod reparse;

use super::boot::Layout;
use super::record::{DATA, Record};
use super::stream::{Stream, Table};
use crate::files::{Attributes, Entry, Files, Node};
use data::Data;
use facts::Facts;
use imager_disk::ReadAt;
use imager_units::{ByteOffset, Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

const ROOT: u64 = 5;
/// Below this number are the filesystem's own files.
const FIRST_USER: u64 = 16;
/// How many files' places are remembered, none of them of more runs than this.
const REMEMBERED: usize = 16;
const REMEMBERED_RUNS: usize = 1 << 15;
/// Longer streams are listed, but cannot be an attribute of Linux (`XATTR_SIZE_MAX`).
const MOST_XATTR_BYTES: u64 = 64 << 10;
const USER: &[u8] = b"user.";

/// The files of one volume.
pub(crate) struct NtfsFiles<'v> {
    volume: Box<dyn ReadAt + 'v>,
    layout: Layout,
    table: Stream,
    /// Where the content of files lies that were read last, newest last.
    last: Mutex<Vec<(u64, Arc<Data>)>>,
}

/// Opens them.
///
/// # Errors
/// `Unsupported`, `Corrupt`, `Io`.
pub(crate) fn files<'v>(volume: Box<dyn ReadAt + 'v>) -> Result<Box<dyn Files + 'v>> {
    let boot = super::boot_sector(&*volume)?.ok_or_else(|| Error::corrupt("there is no NTFS boot sector"))?;
    let layout = Layout::new(&boot, volume.geometry().size)?;
    let table = Table::open(&*volume, &layout)?.data.into_owned();
    let files = NtfsFiles { volume, layout, table, last: Mutex::default() };
    let root = files.table().record(ROOT)?;
    if !root.is_folder() {
        return Err(root.wrong("(the root directory) is none"));
    }
    Ok(Box::new(files))
}

impl NtfsFiles<'_> {
    fn table(&self) -> Table<'_> {
        Table::over(&*self.volume, &self.layout, &self.table)
    }

    /// The base record of a file that is shown.
    fn record(&self, node: Node) -> Result<Record> {
        if node.0 != ROOT && node.0 < FIRST_USER || node.0 >= self.table().records() {
            return Err(crate::files::absent(node));
        }
        let record = self.table().record(node.0)?;
        match record.base() {
            None => Ok(record),
            Some(_) => Err(record.wrong("continues another and is no file")),
        }
    }

    /// The content of a file, found once for several reads.
    fn data(&self, node: Node) -> Result<Arc<Data>> {
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, data)) = lock().iter().find(|(number, _)| *number == node.0) {
            return Ok(Arc::clone(data));
        }
        let record = self.record(node)?;
        let facts = Facts::of(&self.table(), &record)?;
        let data = match facts.stands_for()? {
            Some(_) => Data::Resident(Vec::new()),
            None => Data::find(&self.table(), &record, &[])?.unwrap_or(Data::Resident(Vec::new())),
        };
        let data = Arc::new(data);
        if data.runs() <= REMEMBERED_RUNS {
            let mut last = lock();
            if last.len() >= REMEMBERED {
                last.remove(0);
            }
            last.push((node.0, Arc::clone(&data)));
        }
        Ok(data)
    }
}

impl Files for NtfsFiles<'_> {
    fn root(&self) -> Node {
        Node(ROOT)
    }

    fn attributes(&self, node: Node) -> Result<Attributes> {
        let record = self.record(node)?;
        Facts::of(&self.table(), &record)?.attributes(&self.table(), &record)
    }

    fn entries(&self, folder: Node, from: u64, each: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        directory::entries(&self.table(), &self.record(folder)?, from, each)
    }

    fn read(&self, file: Node, at: ByteOffset, buf: &mut [u8]) -> Result<usize> {
        self.data(file)?.read(&*self.volume, &self.layout, at.get(), buf)
    }

    fn target(&self, link: Node) -> Result<Vec<u8>> {
        let record = self.record(link)?;
        let facts = Facts::of(&self.table(), &record)?;
        facts
            .stands_for()?
            .and_then(facts::Special::target)
            .ok_or_else(|| record.wrong("is no symbolic link"))
    }

    fn extended(&self, node: Node) -> Result<Vec<Vec<u8>>> {
        let streams = self.table().streams(&self.record(node)?)?;
        let names = streams.iter().map(|stream| [USER, &name::to_bytes(stream)].concat());
        Ok(names.filter(|name| !name.contains(&0)).collect())
    }

    fn extended_value(&self, node: Node, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let record = self.record(node)?;
        let streams = self.table().streams(&record)?;
        let wanted = name.strip_prefix(USER);
        let Some(stream) = streams.iter().find(|stream| Some(&*name::to_bytes(stream)) == wanted) else {
            return Ok(None);
        };
        let Some(data) = Data::find(&self.table(), &record, stream)? else { return Ok(None) };
        if data.size() > MOST_XATTR_BYTES {
            return Err(Error::unsupported("the stream is longer than an extended attribute may be"));
        }
        let mut value = vec![0; usize::try_from(data.size()).unwrap_or_default()];
        data.read(&*self.volume, &self.layout, 0, &mut value)?;
        Ok(Some(value))
    }
}

impl Table<'_> {
    /// The names of the data streams that have one.
    fn streams(&self, base: &Record) -> Result<Vec<Vec<u8>>> {
        let mut names = self.names_of(base, DATA)?;
        names.retain(|name| !name.is_empty());
        names.dedup();
        Ok(names)
    }
}
