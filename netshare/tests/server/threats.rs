//! THREATS.md names tests; they have to be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_is_named_exists_and_every_claim_names_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("netshare/THREATS.md")).unwrap();
    let mut tests = BTreeSet::new();
    for folder in ["netshare", "imager", "tests/tests"] {
        tests_in(&root.join(folder), &mut tests);
    }
    let claims: Vec<&str> = text
        .split("\n## ")
        .filter_map(|part| part.split("\nCannot\n").nth(1))
        .flat_map(|claims| claims.split("\n- "))
        .collect();
    assert!(claims.len() > 20);
    for claim in claims {
        let named: Vec<_> = claim.split('`').skip(1).step_by(2).filter(|word| word.contains('_')).collect();
        assert!(!named.is_empty(), "no test holds this: {claim}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
}
