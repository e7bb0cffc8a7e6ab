//! Boot entries: whatever firmware or an installer stored. What is read is written back as it was.

#![no_main]

use imager::firmware::device_path::{file, nodes, partition};
use imager::firmware::load_option::LoadOption;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _any = (partition(data), file(data));
    let Ok(option) = LoadOption::parse(data) else { return };
    assert_eq!(option.encode().expect("it came out of an entry"), data);
    assert!(!option.description().chars().any(char::is_control));
    let Ok(found) = nodes(&option.path) else { return };
    assert!(found.iter().all(|node| node.rest.len() <= option.path.len()));
    if let Some((drive, from_there)) = partition(&option.path).expect("its nodes were read") {
        assert!(option.path.ends_with(from_there));
        let again = [drive.encode(), vec![0x7f, 0xff, 4, 0]].concat();
        assert_eq!(partition(&again).expect("just made").map(|(drive, _)| drive), Some(drive));
    }
});
