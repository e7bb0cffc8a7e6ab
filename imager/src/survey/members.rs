//! Volumes that are the devices of one filesystem: what is used of one, only all of them tell.

use super::Survey;
use imager_units::{ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lets each volume know the others of its filesystem, and warns of filesystems that are not all here.
pub(super) fn join(survey: &mut Survey) -> Result<()> {
    let mut sets: BTreeMap<String, (u64, Vec<usize>)> = BTreeMap::new();
    for (place, volume) in survey.volumes.iter_mut().enumerate() {
        let member = match imager_volume::member(&*volume.bytes) {
            Err(error) if error.kind() == ErrorKind::Io => continue,
            member => member?,
        };
        if let Some(member) = member {
            sets.entry(member.set.clone()).or_insert((member.of, Vec::new())).1.push(place);
            volume.member = Some(member);
        }
    }
    for (set, (of, places)) in sets {
        for &place in &places {
            let others = places.iter().filter(|other| **other != place);
            let others: Vec<_> = others.map(|&other| Arc::clone(&survey.volumes[other].bytes)).collect();
            survey.volumes[place].companions = others;
        }
        if u64::try_from(places.len()) != Ok(of) {
            let keys: Vec<_> = places.iter().map(|&place| survey.volumes[place].key.as_str()).collect();
            survey.warnings.push(format!(
                "the filesystem {set} lies on {of} devices, of which only volume {} is on these disks: without the \
                 others it cannot be used",
                keys.join(" and volume ")
            ));
        }
    }
    Ok(())
}
