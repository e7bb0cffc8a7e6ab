use super::{Action, Scope, Verdict};
use netshare_store::ObjectName;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn names() -> Vec<(ObjectName, &'static str)> {
    let id = |folder: &str| format!("{folder}/{ID}");
    let list = [
        ("halfhour.json".to_owned(), "g"),
        ("RESTORE.txt".to_owned(), "g"),
        ("restore.py".to_owned(), "g"),
        ("other.json".to_owned(), ""),
        (id("keys"), "g"),
        (id("packs/01"), "gp"),
        (id("packs"), ""),
        (id("index"), "gp"),
        (id("leases"), "gp"),
        (id("trash"), "g"),
        (id("moved"), "g"),
        (id("damaged"), "g"),
        (id("holds"), "g"),
        (id("captures/web"), "gp"),
        (id("captures/db"), ""),
        (id("captures/web/x"), ""),
        ("captures/web".to_owned(), ""),
        (id("reports/web"), "p"),
        (id("reports/db"), ""),
        (format!("checks/{ID}/1"), "o"),
        ("checks/nonsense/1".to_owned(), ""),
        (id("console"), ""),
    ];
    list.into_iter().map(|(name, may)| (ObjectName::new(name).unwrap(), may)).collect()
}

#[test]
fn a_machines_token_does_what_a_capture_needs_and_nothing_else() {
    let scope: Scope = "machine:web".parse().unwrap();
    for (name, may) in names() {
        let got = scope.judge(Action::Get(&name));
        let get = if may.contains('g') { Verdict::Allowed } else { Verdict::Refused };
        let get = if may.contains('o') { Verdict::IfOwn(ID.parse().unwrap()) } else { get };
        assert_eq!(got, get, "get {name}");
        assert_eq!(scope.judge(Action::Put(&name)) == Verdict::Allowed, may.contains('p'), "put {name}");
        assert_eq!(scope.judge(Action::Delete(&name)), Verdict::Refused, "delete {name}");
    }
    for folder in
        ["captures/web", "keys", "leases", "trash", "damaged", "index", "moved", "holds", "reports/web"]
    {
        assert_eq!(scope.judge(Action::List(folder)), Verdict::Allowed, "{folder}");
    }
    for folder in [
        "",
        "captures",
        "captures/db",
        "captures/web/x",
        "packs",
        "packs/00",
        "checks",
        "reports",
        "reports/db",
    ] {
        assert_eq!(scope.judge(Action::List(folder)), Verdict::Refused, "{folder}");
    }
    assert_eq!(scope.judge(Action::Make), Verdict::Refused);
}

#[test]
fn a_restore_token_reads_and_reports() {
    let all: Scope = "restore".parse().unwrap();
    let one: Scope = "restore:web,mail".parse().unwrap();
    for (name, _) in names() {
        let text = name.as_str();
        let reports = text.starts_with("reports/") || text.starts_with("checks/");
        assert_eq!(all.judge(Action::Get(&name)), Verdict::Allowed, "{name}");
        assert_eq!(all.judge(Action::Put(&name)) == Verdict::Allowed, reports, "{name}");
        assert_eq!(all.judge(Action::Delete(&name)), Verdict::Refused);
        let hidden = text.starts_with("captures/db") || text.starts_with("reports/db");
        assert_eq!(one.judge(Action::Get(&name)) == Verdict::Refused, hidden, "{name}");
        assert_eq!(one.judge(Action::Put(&name)) == Verdict::Allowed, reports && !hidden, "{name}");
        assert_eq!(one.shows(&name), !hidden);
    }
    for scope in [&all, &one] {
        for folder in ["", "packs", "packs/00"] {
            assert_eq!(scope.judge(Action::List(folder)), Verdict::Refused, "{folder}");
        }
        for folder in ["captures", "captures/web", "leases", "checks"] {
            assert_eq!(scope.judge(Action::List(folder)), Verdict::Allowed, "{folder}");
        }
    }
    assert_eq!(one.judge(Action::List("captures/db")), Verdict::Refused);
    assert_eq!(all.judge(Action::List("captures/db")), Verdict::Allowed);
}

#[test]
fn scopes_are_read_as_they_are_shown() {
    for text in ["admin", "restore", "restore:a,b", "machine:web-1"] {
        assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
    }
    for text in
        ["", "machine", "machine:", "machine:A", "machine:../x", "restore:", "restore:a,", "admin:x", "root"]
    {
        assert!(text.parse::<Scope>().is_err(), "{text}");
    }
}
