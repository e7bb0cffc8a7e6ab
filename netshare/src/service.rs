//! From a request to its answer: shape, target, token, scope, and only then the disk.

use crate::answer::{Answer, CountedBody, Payload, Refusal, bare, with_body};
use crate::record::Record;
use crate::scope::{Action, Scope, Verdict};
use crate::server::Server;
use crate::target::Target;
use crate::tokens::Grant;
use crate::upload::Place;
use crate::{document, download, listing, machines, upload};
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use netshare_store::{DirStore, ObjectName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of the protocol, on every answer.
const PROTOCOL: HeaderName = HeaderName::from_static("halfhour-share");

/// What a connection is told about its last request.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// It was refused while its client may still be sending.
    pub(crate) unread: AtomicBool,
    /// There was one at all.
    pub(crate) answered: AtomicBool,
}

/// Who asks.
struct Holder {
    grant: Arc<Grant>,
    secret: String,
}

/// Answers a request, whatever it is.
pub(crate) async fn answer(
    server: Server,
    peer: SocketAddr,
    ending: Arc<Ending>,
    request: Request<Incoming>,
) -> Response<CountedBody> {
    let mut record = Record::begin(&server.metrics, peer, request.method());
    let has_body = !request.body().is_end_stream();
    let is_head = request.method() == Method::HEAD;
    let mut answer = match serve(&server, request, &mut record).await {
        Ok(answer) => answer,
        Err(refusal) => {
            record.failed(&refusal.reason());
            refusal.into_answer()
        }
    };
    if has_body && !answer.status().is_success() {
        ending.unread.store(true, Ordering::Relaxed);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if is_head {
        *answer.body_mut() = Payload::whole("");
    }
    // A client believes nothing that comes from a portal or proxy in between, whatever its status.
    answer.headers_mut().insert(PROTOCOL, HeaderValue::from_static("1"));
    ending.answered.store(true, Ordering::Relaxed);
    record.answered(answer.status());
    answer.map(|payload| CountedBody::new(payload, record))
}

async fn serve(server: &Server, request: Request<Incoming>, record: &mut Record) -> Result<Answer, Refusal> {
    let target = Target::parse(request.uri().path());
    if let Ok(target) = &target {
        record.about(target.repository(), target.name());
    }
    check_shape(&request)?;
    let target = target?;
    if target == Target::Health {
        return match *request.method() {
            Method::GET => Ok(bare(StatusCode::OK)),
            _ => Err(Refusal::unknown_method(target.methods())),
        };
    }
    let secret = bearer(request.headers())?;
    let (grant, is_known) = authenticate(server, &secret, target.repository()).await?;
    // Only what is there is counted by name: a client may make up names without end.
    record.by(&grant.name, grant.scope.machine().filter(|_| is_known));
    let place = Arc::clone(&server.requests).try_acquire_owned().map_err(|_| Refusal::overloaded())?;
    let counted = server.per_token.enter(grant.name.clone());
    let counted =
        counted.ok_or_else(|| Refusal::too_many("too many requests with this token are under way"))?;
    record.holds(place, counted);
    dispatch(server, &Holder { grant, secret }, &target, request, record).await
}

/// Refuses what HTTP leaves open to more than one reading, and what this protocol has no use for.
fn check_shape(request: &Request<Incoming>) -> Result<(), Refusal> {
    let (uri, headers) = (request.uri(), request.headers());
    let count = |name| headers.get_all(name).iter().count();
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::malformed("only HTTP/1.1 is spoken here"));
    }
    if uri.scheme().is_some() || uri.authority().is_some() || uri.query().is_some() {
        return Err(Refusal::malformed("the target has to be a plain path"));
    }
    if count(HOST) != 1 || count(CONTENT_LENGTH) > 1 {
        return Err(Refusal::malformed("a header is missing or there twice"));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        let is_put = request.method() == Method::PUT && count(CONTENT_LENGTH) == 0;
        return Err(if is_put { Refusal::no_length() } else { Refusal::malformed("chunks are not taken") });
    }
    Ok(())
}

/// The secret that a request shows.
fn bearer(headers: &HeaderMap) -> Result<String, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let only = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let secret = only.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(Refusal::unknown_token)?;
    Ok(secret.to_owned())
}

/// What a secret is for, and whether the repository was opened before.
async fn authenticate(
    server: &Server,
    secret: &str,
    repository: Option<&str>,
) -> Result<(Arc<Grant>, bool), Refusal> {
    let (tokens, repositories) = (Arc::clone(&server.tokens), Arc::clone(&server.repositories));
    let (secret, repository) = (secret.to_owned(), repository.unwrap_or_default().to_owned());
    let find = move || -> Result<_, Refusal> {
        if let Some(grant) = tokens.find(&secret)? {
            return Ok((grant, repositories.is_known(&repository)));
        }
        // Where the disk was unmounted there are no tokens: whoever has one should come back, not give up.
        repositories.check_mounted()?;
        Err(Refusal::unknown_token())
    };
    server.disk.call(find).await
}

async fn dispatch(
    server: &Server,
    holder: &Holder,
    target: &Target,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let grant = &*holder.grant;
    let action = action(target, request.method()).ok_or_else(|| Refusal::unknown_method(target.methods()))?;
    if !matches!(action, Action::Put(_)) && !request.body().is_end_stream() {
        return Err(Refusal::malformed("this request has no body"));
    }
    let repository = target.repository().unwrap_or_default().to_owned();
    let verdict = if grant.is_for(&repository) { grant.scope.judge(action) } else { Verdict::Refused };
    if verdict == Verdict::Refused {
        return Err(out_of_scope(grant));
    }
    if let Action::Make = action {
        return make(server, repository).await;
    }
    let repositories = Arc::clone(&server.repositories);
    let named = repository.clone();
    let store = server.disk.call(move || repositories.open(&named)).await?;
    if let Verdict::IfOwn(capture) = verdict {
        let (store, machine) = (Arc::clone(&store), grant.scope.machine().unwrap_or_default().to_owned());
        if !server.disk.call(move || machines::owns(&store, &machine, capture)).await? {
            return Err(out_of_scope(grant));
        }
    }
    match action {
        Action::Look | Action::Make => Ok(look(&repository, grant)),
        Action::Put(name) => put(server, holder, (store, repository), name, request, record).await,
        Action::Get(name) if request.method() == Method::HEAD => {
            download::tell(server, store, name.clone()).await
        }
        Action::Get(name) => download::send(server, store, name.clone(), request.headers()).await,
        Action::List(folder) => listing::send(server, store, folder.to_owned(), grant),
        Action::Delete(name) => {
            let name = name.clone();
            server.disk.call(move || netshare_store::Store::delete(&*store, &name)).await?;
            Ok(bare(StatusCode::NO_CONTENT))
        }
    }
}

/// What a method means for a target.
fn action<'a>(target: &'a Target, method: &Method) -> Option<Action<'a>> {
    match (target, method) {
        (Target::Repository(_), &Method::GET) => Some(Action::Look),
        (Target::Repository(_), &Method::PUT) => Some(Action::Make),
        (Target::Object(_, name), &Method::PUT) => Some(Action::Put(name)),
        (Target::Object(_, name), &Method::GET | &Method::HEAD) => Some(Action::Get(name)),
        (Target::Object(_, name), &Method::DELETE) => Some(Action::Delete(name)),
        (Target::List(_, folder), &Method::GET) => Some(Action::List(folder)),
        _ => None,
    }
}

fn out_of_scope(grant: &Grant) -> Refusal {
    Refusal::out_of_scope(format!("token {} ({}) may not do that", grant.name, grant.scope))
}

fn look(repository: &str, grant: &Grant) -> Answer {
    let (scope, machine) = (grant.scope.word(), grant.scope.machine());
    let document = serde_json::json!({ "repository": repository, "scope": scope, "machine": machine });
    with_body(StatusCode::OK, "application/json", Payload::whole(document.to_string()))
}

async fn make(server: &Server, repository: String) -> Result<Answer, Refusal> {
    let repositories = Arc::clone(&server.repositories);
    let new = server.disk.call(move || repositories.make(&repository)).await?;
    Ok(bare(if new { StatusCode::CREATED } else { StatusCode::OK }))
}

async fn put(
    server: &Server,
    Holder { grant, secret }: &Holder,
    (store, repository): (Arc<DirStore>, String),
    name: &ObjectName,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    if grant.scope != Scope::Admin {
        document::check_report(name, upload::length(request.headers())?).map_err(Refusal::out_of_scope)?;
    }
    let machine = grant.scope.machine().map(str::to_owned);
    if let Some(machine) = machine.clone() {
        let digest = upload::digest(request.headers())?;
        document::check_name(name, digest).map_err(Refusal::out_of_scope)?;
        let (store, name) = (Arc::clone(&store), name.clone());
        let taken = move || document::is_anothers(&store, &machine, &name);
        if server.disk.call(taken).await? {
            return Err(Refusal::out_of_scope("the name is of another machine's capture"));
        }
    }
    let (tokens, secret, name) = (Arc::clone(&server.tokens), secret.clone(), name.clone());
    // What an admin needs to make room again is kept free for him.
    let reserve = (grant.scope != Scope::Admin).then(|| server.repositories.folder(&repository));
    let place =
        Place { store, name, machine, reserve, valid: Box::new(move || Ok(tokens.find(&secret)?.is_some())) };
    upload::receive(server, place, request, record).await
}
