//! Names of objects as a share may list them: what is read from one is written as that name and no other, and is a name
//! that leads nowhere else.

#![no_main]

use imager_image::names;
use libfuzzer_sys::fuzz_target;
use netshare_store::ObjectName;
use std::path::{Component, Path};

fuzz_target!(|data: &[u8]| {
    let Ok(name) = std::str::from_utf8(data) else { return };
    let object = ObjectName::new(name);
    if let Ok(object) = &object {
        assert_eq!(object.as_str(), name);
        assert!(Path::new(name).components().all(|part| matches!(part, Component::Normal(_))));
        assert_eq!(Path::new(name).components().count(), object.segments().count());
    }
    let is = |written: String| {
        assert_eq!(written, name);
        assert!(object.is_ok(), "{name:?} is of no share's grammar");
    };
    if let Some((machine, time, id)) = names::manifest_parts(name) {
        is(names::manifest(machine, time, id));
    }
    if let Some((pack, part)) = names::moved_part(name) {
        is(names::moved(pack, part));
    }
    if let Some(pack) = names::pack_of(name) {
        let folder = name.split_once('/').map_or("", |(folder, _)| folder);
        is(if folder == names::PACKS { names::pack(pack) } else { names::marker(folder, pack) });
    }
    for (folder, written) in [
        (names::LEASES, names::lease as fn(_) -> _),
        (names::INDEX, names::index),
        (names::HOLDS, names::hold),
        (names::PRUNES, names::prune),
    ] {
        if let Some(id) = names::capture_of(folder, name) {
            is(written(id));
        }
    }
});
