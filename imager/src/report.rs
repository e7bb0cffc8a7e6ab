//! Reports of restores, kept in the repository beside the captures: what was done, when, to which disks, how it ended.
//!
//! A restore with nobody at its console is heard of in no other way. A report is written once, after the restore, and
//! changes nothing about it: whether it could be put decides nothing. It holds no secrets, is sealed like everything
//! else where the repository is, and is bounded, whatever happened: first the log gives way, then lists of byte runs, then
//! the result itself.

use crate::clock;
use crate::repository::{Repository, object};
use imager_image::frame::{FRAME_MOST_BYTES, FRAME_MOST_RAW_BYTES, FrameKind};
use imager_image::repository::decode_json;
use imager_image::{CaptureId, Compression, names};
use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use netshare_store::ObjectName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a report holds at most, in clear.
const MOST_BYTES: usize = FRAME_MOST_RAW_BYTES;
/// How long a report on the share may be: what is longer, whoever put it, is not fetched.
const MOST_STORED: ByteLen = ByteLen::new(FRAME_MOST_BYTES as u64);

/// What is told of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    /// Whose capture it was.
    pub machine: String,
    /// Which capture; `null` when none was found.
    pub capture: Option<CaptureId>,
    /// The plan's hash; `null` when there was none.
    pub plan: Option<String>,
    /// When it began and ended, RFC 3339 UTC.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// The exit status of the command.
    pub exit_status: u8,
    /// The disks written to: `{disk, path, model, serial, wwn, size_bytes}`, or `{asked}` where it came to no plan.
    pub targets: Vec<Value>,
    /// What the command said with `--json`; `null` when it failed.
    pub result: Value,
    /// Why it failed, `{kind, message, advice}`; `null` when it did not.
    pub error: Value,
    /// The program and its version.
    pub agent: String,
    /// The rescue environment's version, where it ran there.
    pub rescue: Option<String>,
    /// The host: `{hostname, hardware_uuid, firmware}`.
    pub host: Value,
    /// The end of the rescue environment's log.
    pub log: Vec<String>,
}

/// A report on the share.
#[derive(Debug)]
pub struct Listed {
    /// Its object.
    pub name: ObjectName,
    /// Whose, by its name.
    pub machine: String,
    /// When, by its name: compact.
    pub time: String,
    /// What it says.
    pub document: Result<Document>,
}

/// Puts a report; says under which name.
///
/// # Errors
/// Those of the share; `Invalid` when the machine has no name.
pub fn put(repository: &Repository, document: &Document) -> Result<ObjectName> {
    names::check_machine(&document.machine)?;
    let mut id = [0; 4];
    imager_image::id::fill_random(&mut id)?;
    let name = object(names::report(&document.machine, &clock::compact(&document.ended), id))?;
    let bytes = repository.codec(Compression::Small)?.seal(FrameKind::Report, &encode(document.clone())?)?;
    repository.store().put(&name, &bytes).context(|| format!("putting the report {name}"))?;
    Ok(name)
}

/// The document as text that is not too long.
fn encode(mut document: Document) -> Result<Vec<u8>> {
    let fit = |document: &Document| -> Result<Option<Vec<u8>>> {
        let json = serde_json::to_vec(document);
        let json = json.map_err(|e| Error::with_source(ErrorKind::Invalid, "writing a report", e))?;
        Ok((json.len() <= MOST_BYTES).then_some(json))
    };
    let steps: [fn(&mut Document); 4] = [
        |_| {},
        |document| document.log = vec!["(left out: the report would be too long)".to_owned()],
        |document| drop_extents(&mut document.result),
        |document| document.result = json!({ "left_out": "the report would be too long" }),
    ];
    for step in steps {
        step(&mut document);
        if let Some(json) = fit(&document)? {
            return Ok(json);
        }
    }
    Err(Error::new(ErrorKind::Invalid, "the report is too long"))
}

fn drop_extents(result: &mut Value) {
    for problem in result["problems"].as_array_mut().into_iter().flatten() {
        problem["extents"] = json!([]);
    }
}

/// Every report (of one machine), by machine and time.
///
/// # Errors
/// `Io`, `Denied` from the share; a report that cannot be read is shown with its error.
pub fn list(repository: &Repository, machine: Option<&str>, each: &mut dyn FnMut(Listed)) -> Result<()> {
    let folder =
        machine.map_or_else(|| names::REPORTS.to_owned(), |machine| format!("{}/{machine}", names::REPORTS));
    let mut found = Vec::new();
    repository.store().list(&folder, &mut |entry| {
        if let Some((machine, time)) = names::report_parts(entry.name.as_str()) {
            let (machine, time) = (machine.to_owned(), time.to_owned());
            found.push((machine, time, entry.name, entry.len));
        }
        Ok(())
    })?;
    found.sort();
    let mut codec = repository.codec(Compression::Small)?;
    for (machine, time, name, len) in found {
        let mut read = || {
            if len > MOST_STORED {
                return Err(Error::corrupt("a report that is too long"));
            }
            let raw = codec.open(FrameKind::Report, &repository.store().get(&name)?)?;
            let document: Document = decode_json(&raw, "a report")?;
            if document.machine != machine {
                return Err(Error::corrupt("a report that speaks of another machine"));
            }
            Ok(document)
        };
        match read() {
            // It went away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                return Err(error);
            }
            document => each(Listed { name, machine, time, document }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Document, Listed, list, put};
    use crate::repository::{Found, Repository};
    use imager_units::ErrorKind;
    use netshare_store::{MemoryStore, ObjectName, Store};
    use serde_json::json;
    use std::sync::Arc;

    fn document(machine: &str, ended: &str) -> Document {
        Document {
            machine: machine.to_owned(),
            ended: ended.to_owned(),
            exit_status: 4,
            ..Document::default()
        }
    }

    fn all(repository: &Repository, machine: Option<&str>) -> Vec<Listed> {
        let mut found = Vec::new();
        list(repository, machine, &mut |listed| found.push(listed)).unwrap();
        found
    }

    #[test]
    fn reports_are_read_back_by_machine_and_time() {
        for secret in [None, Some(b"secret".as_slice())] {
            let store = Arc::new(MemoryStore::new());
            let repository = Repository::create(Arc::clone(&store) as Arc<dyn Store>, secret).unwrap();
            for (machine, ended) in [
                ("web", "2026-11-21T03:15:02Z"),
                ("db", "2026-11-21T03:15:03Z"),
                ("web", "2026-11-21T03:15:01Z"),
            ] {
                put(&repository, &document(machine, ended)).unwrap();
            }
            let times =
                |machine| all(&repository, machine).into_iter().map(|listed| listed.time).collect::<Vec<_>>();
            assert_eq!(times(None), ["20261121T031503Z", "20261121T031501Z", "20261121T031502Z"]);
            assert_eq!(times(Some("web")).len(), 2);
            let listed = all(&repository, Some("db")).remove(0);
            assert_eq!(listed.document.unwrap(), document("db", "2026-11-21T03:15:03Z"));
            let stored = store.get(&listed.name).unwrap();
            // The cipher of its frame.
            assert_eq!(stored[10] == 1, secret.is_some(), "sealed where the repository is");
        }
    }

    #[test]
    fn one_that_is_damaged_or_speaks_of_another_machine_hides_no_other() {
        let store = Arc::new(MemoryStore::new());
        Repository::create(Arc::clone(&store) as Arc<dyn Store>, None).unwrap();
        let Found::Open(repository) = Repository::find(Arc::clone(&store) as Arc<dyn Store>).unwrap() else {
            panic!("it is open")
        };
        let name = put(&repository, &document("web", "2026-11-21T03:15:02Z")).unwrap();
        let moved = ObjectName::new(name.as_str().replace("web", "db")).unwrap();
        store.put(&moved, &store.get(&name).unwrap()).unwrap();
        store.put(&ObjectName::new("reports/web/20261121T031500Z-00000000").unwrap(), b"junk").unwrap();
        store.put(&ObjectName::new("reports/web/notes").unwrap(), b"junk").unwrap();
        let kinds: Vec<_> = all(&repository, None)
            .into_iter()
            .map(|listed| listed.document.err().map(|e| e.kind()))
            .collect();
        assert_eq!(kinds, [Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt), None]);
    }

    #[test]
    fn a_report_is_bounded_and_keeps_what_matters_longest() {
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::create(Arc::clone(&store) as Arc<dyn Store>, None).unwrap();
        let ended = |second: u32| format!("2026-11-21T03:15:{second:02}Z");
        let extents: Vec<_> = (0..100_000).map(|n| [n, 512]).collect();
        let problem = json!({ "volume": "2", "message": "damaged", "extents": extents });
        let log = vec!["x".repeat(1000); 2000];
        put(&repository, &Document { log: log.clone(), ..document("m", &ended(1)) }).unwrap();
        put(
            &repository,
            &Document { log, result: json!({ "problems": [problem] }), ..document("m", &ended(2)) },
        )
        .unwrap();
        put(
            &repository,
            &Document { result: json!({ "x": "y".repeat(2 << 20) }), ..document("m", &ended(3)) },
        )
        .unwrap();
        let read: Vec<_> =
            all(&repository, None).into_iter().map(|listed| listed.document.unwrap()).collect();
        assert!(read[0].log.len() == 1 && read[1].log.len() == 1);
        assert_eq!(read[1].result["problems"][0]["message"], "damaged");
        assert_eq!(read[2].result["x"], json!(null));
        assert!(read.iter().all(|document| document.exit_status == 4));
    }
}
