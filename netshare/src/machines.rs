//! When each machine was last heard of, read from the times at which objects came.

use crate::repositories::Repositories;
use imager_image::{CaptureId, names};
use imager_units::Result;
use netshare_store::{DirStore, Store};
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// A machine in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) repository: String,
    pub(crate) machine: String,
    /// When its last manifest came.
    pub(crate) captured: Option<SystemTime>,
    /// When the last mark on a capture of it came that says it was verified.
    pub(crate) checked: Option<SystemTime>,
}

/// The machines of all repositories.
///
/// # Errors
/// `Denied`, `Io` from the disk.
pub(crate) fn look(repositories: &Repositories) -> Result<Vec<Machine>> {
    let mut machines = Vec::new();
    for repository in repositories.names()? {
        let store = repositories.open(&repository)?;
        machines.extend(look_in(&store, &repository)?);
    }
    Ok(machines)
}

fn look_in(store: &DirStore, repository: &str) -> Result<Vec<Machine>> {
    let mut whose: HashMap<CaptureId, String> = HashMap::new();
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    store.list(names::CAPTURES, &mut |entry| {
        if let Some((machine, _, id)) = names::manifest_parts(entry.name.as_str()) {
            whose.insert(id, machine.to_owned());
            let found = machines.entry(machine.to_owned()).or_insert_with(|| Machine {
                repository: repository.to_owned(),
                machine: machine.to_owned(),
                captured: None,
                checked: None,
            });
            found.captured = found.captured.max(entry.received);
        }
        Ok(())
    })?;
    store.list("checks", &mut |entry| {
        let capture = entry.name.segments().nth(1).and_then(|id| id.parse().ok());
        let machine = capture.and_then(|id: CaptureId| whose.get(&id));
        if let Some(found) = machine.and_then(|machine| machines.get_mut(machine)) {
            found.checked = found.checked.max(entry.received);
        }
        Ok(())
    })?;
    Ok(machines.into_values().collect())
}

/// Whether a capture is one of the machine's.
///
/// # Errors
/// `Denied`, `Io` from the disk.
pub(crate) fn owns(store: &DirStore, machine: &str, capture: CaptureId) -> Result<bool> {
    let mut owns = false;
    store.list(&format!("{}/{machine}", names::CAPTURES), &mut |entry| {
        owns |= names::manifest_parts(entry.name.as_str()).is_some_and(|(_, _, id)| id == capture);
        Ok(())
    })?;
    Ok(owns)
}

#[cfg(test)]
mod tests {
    use super::{look, owns};
    use crate::repositories::Repositories;
    use imager_image::CaptureId;
    use netshare_store::{ObjectName, Store};

    #[test]
    fn a_machine_is_as_old_as_its_newest_object() {
        let share = tempfile::tempdir().unwrap();
        let repositories = Repositories::below(share.path()).unwrap();
        repositories.make("r").unwrap();
        let store = repositories.open("r").unwrap();
        let put = |name: &str| store.put(&ObjectName::new(name).unwrap(), b"x").unwrap();
        let (web, db) = (CaptureId([1; 16]), CaptureId([2; 16]));
        put(&format!("captures/web/20261121T031500Z-{web}"));
        put(&format!("captures/db/20261121T031500Z-{db}"));
        put(&format!("checks/{web}/1"));
        put("captures/db/notes");
        let machines = look(&repositories).unwrap();
        let [db_seen, web_seen] = machines.as_slice() else { panic!("{machines:?}") };
        assert!(db_seen.machine == "db" && db_seen.captured.is_some() && db_seen.checked.is_none());
        assert!(web_seen.machine == "web" && web_seen.checked.is_some());
        assert!(owns(&store, "web", web).unwrap() && !owns(&store, "web", db).unwrap());
    }
}
