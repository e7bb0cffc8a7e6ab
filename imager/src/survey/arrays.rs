//! Members of md arrays: which array, and what is in it where each member has a copy.

use super::{Content, Survey, Volume};
use imager_disk::ReadAt;
use imager_image::manifest::Stack;
use imager_units::{ErrorKind, Result};
use imager_volume::md::{self, Level, Superblock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Finds out what members of arrays are members of.
pub(super) fn look_into(survey: &mut Survey) -> Result<()> {
    let mut arrays: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    for volume in &mut survey.volumes {
        if volume.filesystem.as_ref().is_none_or(|found| found.kind != "linux_raid_member") {
            continue;
        }
        let Some(superblock) = readable(Superblock::read(&*volume.bytes))?.flatten() else { continue };
        let array = arrays.entry(superblock.id.clone()).or_insert((superblock.members, Vec::new()));
        array.1.push(volume.key.clone());
        volume.content = readable(content(volume))?.flatten();
        volume.stack = Some(Stack::Member {
            array: superblock.id,
            level: match superblock.level {
                Level::Mirror => "RAID1".to_owned(),
                Level::Other(level) => level,
            },
            members: superblock.members,
            role: superblock.role,
        });
    }
    for (members, keys) in arrays.values().filter(|(members, keys)| keys.len() != *members as usize) {
        survey.warnings.push(format!(
            "the array of volume {} has {members} members, of which {} are on these disks",
            keys.join(" and "),
            keys.len()
        ));
    }
    Ok(())
}

fn content(volume: &Volume) -> Result<Option<Content>> {
    let Some(content) = md::content(Arc::clone(&volume.bytes))? else { return Ok(None) };
    let bytes: Arc<dyn ReadAt> = Arc::new(content.bytes);
    let filesystem = imager_volume::probe(&*bytes)?;
    Ok(Some(Content { bytes, filesystem }))
}

/// What cannot be read is not there: the volume is copied as it is then.
fn readable<T>(looked: Result<T>) -> Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::Io => Ok(None),
        Err(error) => Err(error),
    }
}
