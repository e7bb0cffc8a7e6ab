//! Whoever loses patience with a server that stalls: at each point where it can.

use super::stub::{Stub, answer, body};
use super::{SECRET, name};
use imager_units::{Error, ErrorKind};
use netshare_store::http::{HttpStore, Token};
use netshare_store::{ObjectName, Store, Watch};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wants to stop after this time.
#[derive(Debug)]
struct After(Instant);

impl Watch for After {
    fn cancelled(&self) -> bool {
        self.0 <= Instant::now()
    }

    fn waiting(&self, _error: &Error, _left: Duration) {}

    fn answered(&self) {}
}

fn put_slowly(store: &HttpStore, name: &ObjectName) -> Result<(), Error> {
    store.put(name, &vec![1; 20 << 20]).map(drop)
}

fn stall() -> std::io::Result<bool> {
    std::thread::sleep(Duration::from_secs(2));
    Ok(false)
}

#[test]
fn a_request_that_hangs_ends_when_somebody_wants_to_stop() {
    let whole = "HTTP/1.1 200 OK\r\nHalfhour-Share: 1\r\nContent-Length: 1000\r\n\r\n";
    let nothing = Stub::start(|_, _| stall());
    let half = Stub::start(move |_, connection| {
        connection.write_all(whole.as_bytes())?;
        connection.write_all(b"{\"name\":\"halfhour.json\",\"len\":3}\n")?;
        connection.flush()?;
        stall()
    });
    type Call = fn(&HttpStore, &ObjectName) -> Result<(), Error>;
    let calls: [(&str, Call); 5] = [
        ("put", put_slowly),
        ("get", |store, name| store.get(name).map(drop)),
        ("list", |store, _| store.list("", &mut |_| Ok(()))),
        ("delete", |store, name| store.delete(name)),
        ("create", |store, _| store.create()),
    ];
    for (what, call) in calls {
        for stub in [&nothing, &half] {
            // Those need no body to be answered.
            if std::ptr::eq(stub, &half) && !matches!(what, "get" | "list") {
                continue;
            }
            let (token, silence) = (Token::new(SECRET).unwrap(), Duration::from_secs(30));
            let stop = Instant::now() + Duration::from_millis(300);
            let store = HttpStore::new(stub.url().parse().unwrap(), token, silence).unwrap();
            let store = store.with_watch(Arc::new(After(stop)));
            let error = call(&store, &name("packs/aa/b")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{what}: {error:?}");
            assert!((Instant::now() - stop) < Duration::from_millis(1300), "{what}: {:?}", stop.elapsed());
        }
    }
}

#[test]
fn what_cleans_up_afterwards_is_still_answered() {
    let stub = Stub::start(|head, connection| {
        body(head, connection)?;
        answer(connection, "204 No Content", "", b"")
    });
    let store =
        HttpStore::new(stub.url().parse().unwrap(), Token::new(SECRET).unwrap(), Duration::from_secs(30));
    let store = store.unwrap().with_watch(Arc::new(After(Instant::now())));
    store.delete(&name("leases/a")).unwrap();
}
