//! A service moves from its first version to its second while everybody calls it: the guide's migration, in four steps.
//!
//! ```text
//! cargo run --example versions
//! ```
//!
//! Three providers and two consumers over real mutual TLS sockets, in one process. The consumers call without a pause;
//! each line is printed from what came back, and the exit code is 0 only if no call failed and each step did what it says.
//! `--break both|move|remove|definitions` does one step wrong, to show that it is noticed.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis::client::Error;
use aegis::{Node, Server, ServiceClient, ServiceInfo, ServicePool, TlsOptions};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient as IdentityV1Client;
use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer as IdentityV1Server;
use aegis_proto::identity::v2::identity_service_client::IdentityServiceClient as IdentityV2Client;
use aegis_proto::identity::v2::identity_service_server::IdentityServiceServer as IdentityV2Server;
use aegis_proto::identity::{v1, v2};
use examples::args::{self, Outcome};
use examples::identity::{Identity, Seen};
use examples::load::{Load, Tally};
use examples::strangers;
use examples::tour::{line, millis};
use lexopt::Arg::Long;
use tokio::time::sleep;
use tonic::{Code, Status};

// Two versions are two services that share a name: they are advertised, found and called apart.
const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");

const PROVIDERS: [&str; 3] = ["morpheus-1", "morpheus-2", "morpheus-3"];
const CONSUMERS: [&str; 2] = ["vicky-1", "vicky-2"];
/// How long a provider works on a call, so that each of them has some when it restarts.
const WORK: Duration = Duration::from_millis(5);
/// How long a change may take to be seen.
const SEEN: Duration = Duration::from_secs(5);

const USAGE: &str = "\
A service moves from v1 to v2 under load: v1, v1 and v2, consumers on v2, v2. Exit code 0 only if no call fails.

usage: versions [options]

  --callers N      concurrent callers of each of the two consumers (default 4)
  --hold DURATION  how long calls go on after each step (default 150ms)
  --break STEP     does a step wrong: both, move, remove or definitions

A DURATION is 500ms, 5s, 2m or plain seconds.";

/// The step that is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    /// A provider is killed, not drained.
    Both,
    /// A consumer stays behind.
    Move,
    /// v1 is removed while a consumer asks for it.
    Remove,
    /// A provider keeps v1.
    Definitions,
}

const BREAKS: [(&str, Break); 4] = [
    ("both", Break::Both),
    ("move", Break::Move),
    ("remove", Break::Remove),
    ("definitions", Break::Definitions),
];

struct Options {
    callers: usize,
    hold: Duration,
    broken: Option<Break>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // No logs: that connections come and go is what the lines are about.
    args::report(run().await)
}

#[expect(clippy::print_stdout, reason = "help was asked for")]
async fn run() -> Outcome<ExitCode> {
    let Some(options) = parse()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let certs = tempfile::Builder::new().prefix("aegis-versions-").tempdir()?;
    let mut migration = Migration::start(certs.path(), options).await?;
    migration.add_v2_to_providers().await?;
    migration.move_consumers().await?;
    migration.remove_v1_from_providers().await?;
    migration.remove_definitions_of_v1().await?;
    migration.end().await?;
    Ok(ExitCode::SUCCESS)
}

/// What a provider is built with.
#[derive(Clone, Copy)]
enum Build {
    V1,
    Both,
    V2,
}

struct Provider {
    server: Server,
    /// What it saw of callers of v1.
    v1: Arc<Seen>,
}

impl Provider {
    async fn deploy(
        id: &str,
        address: &str,
        seeds: &[String],
        certs: &Path,
        build: Build,
    ) -> Outcome<Self> {
        let first = Identity::new(id.parse()?).delay(WORK);
        let second = Identity::new(id.parse()?).delay(WORK);
        let seen = first.seen();
        let node = Node::builder()
            .id(id)
            .node_type("identity-server")
            .address(address)
            .cert_dir(certs)
            .join(seeds);
        // What is registered is advertised: no list beside it can be forgotten.
        let node = match build {
            Build::V1 => node.service(IDENTITY_V1, IdentityV1Server::new(first)),
            Build::Both => node
                .service(IDENTITY_V1, IdentityV1Server::new(first))
                .service(IDENTITY_V2, IdentityV2Server::new(second)),
            Build::V2 => node.service(IDENTITY_V2, IdentityV2Server::new(second)),
        };
        Ok(Self { server: node.build()?.start().await?, v1: seen })
    }

    fn address(&self) -> String {
        self.server.local_addr().to_string()
    }
}

/// A consumer as it is deployed: its callers ask for the version that they were built with.
struct Consumer {
    pool: ServicePool,
    node: Node,
    on_v1: Option<Load>,
    on_v2: Option<Load>,
}

impl Consumer {
    /// A consumer that asks nothing yet.
    fn new(id: &str, seeds: &[String], certs: &Path) -> Outcome<Self> {
        let node = Node::builder().id(id).node_type("storage").cert_dir(certs).join(seeds);
        let node = node.build()?;
        Ok(Self { pool: node.pool(), node, on_v1: None, on_v2: None })
    }

    /// Starts callers that were built with the first version.
    async fn call_v1(&mut self, callers: usize) -> Outcome {
        let identity = ServiceClient::new(&self.pool, IDENTITY_V1, IdentityV1Client::new);
        identity.wait_ready(PROVIDERS.len(), SEEN).await?;
        self.on_v1 = Some(Load::start(callers, move || {
            let identity = identity.clone();
            async move {
                let request = v1::GetUserRequest { user_id: "7".to_owned() };
                let answer = identity.get().map_err(text)?.get_user(request).await;
                Ok(answer.map_err(text)?.into_inner().name)
            }
        }));
        Ok(())
    }

    /// Starts callers that were built with the second version.
    async fn call_v2(&mut self, callers: usize) -> Outcome {
        let identity = ServiceClient::new(&self.pool, IDENTITY_V2, IdentityV2Client::new);
        identity.wait_ready(PROVIDERS.len(), SEEN).await?;
        self.on_v2 = Some(Load::start(callers, move || {
            let identity = identity.clone();
            async move {
                let request = v2::GetUserRequest { user_id: "7".to_owned() };
                let answer = identity.get().map_err(text)?.get_user(request).await;
                Ok(answer.map_err(text)?.into_inner().name)
            }
        }));
        Ok(())
    }

    /// What its calls came to since the last look.
    fn take(&self) -> Counts {
        Counts {
            v1: self.on_v1.as_ref().map(Load::take).unwrap_or_default(),
            v2: self.on_v2.as_ref().map(Load::take).unwrap_or_default(),
        }
    }
}

fn text(status: impl Into<Status>) -> String {
    let status = status.into();
    format!("{:?}: {}", status.code(), status.message())
}

/// Calls by version and provider.
#[derive(Default, Clone)]
struct Counts {
    v1: Tally,
    v2: Tally,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.v1 += other.v1;
        self.v2 += other.v2;
    }

    fn calls(&self) -> u64 {
        self.v1.calls() + self.v2.calls()
    }

    fn failure(&self) -> Option<String> {
        let failed = self.v1.failed + self.v2.failed;
        let first = self.v1.first_failure.as_ref().or(self.v2.first_failure.as_ref())?;
        Some(format!("{failed} of {} calls failed, the first: {first}", self.calls()))
    }
}

impl fmt::Display for Counts {
    /// `41 calls, 0 failed; v1 41 (morpheus-1 14, morpheus-2 14, morpheus-3 13), v2 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls, {} failed", self.calls(), self.v1.failed + self.v2.failed)?;
        for (separator, version, tally) in [(";", "v1", &self.v1), (",", "v2", &self.v2)] {
            write!(f, "{separator} {version} {}", tally.answered())?;
            let shares: Vec<_> =
                tally.by_provider.iter().map(|(id, calls)| format!("{id} {calls}")).collect();
            if !shares.is_empty() {
                write!(f, " ({})", shares.join(", "))?;
            }
        }
        Ok(())
    }
}

struct Migration<'a> {
    certs: &'a Path,
    options: Options,
    providers: Vec<Provider>,
    consumers: Vec<Consumer>,
    total: Counts,
}

impl<'a> Migration<'a> {
    /// Where everybody is before: providers and consumers know v1 only.
    async fn start(certs: &'a Path, options: Options) -> Outcome<Self> {
        let mut providers = Vec::new();
        let mut seeds = Vec::new();
        for id in PROVIDERS {
            let provider = Provider::deploy(id, "127.0.0.1:0", &seeds, certs, Build::V1).await?;
            seeds.push(provider.address());
            providers.push(provider);
        }
        let mut consumers = Vec::new();
        for id in CONSUMERS {
            let mut consumer = Consumer::new(id, &seeds, certs)?;
            consumer.call_v1(options.callers).await?;
            consumers.push(consumer);
        }
        let mut this = Self { certs, options, providers, consumers, total: Counts::default() };
        let counts = this.hold("start").await?;
        check_shared("start", "v1", &counts.v1)?;
        let text =
            format!("{} providers of v1 and {} consumers on v1", PROVIDERS.len(), CONSUMERS.len());
        line("start", format_args!("{text}: {counts}"));
        Ok(this)
    }

    /// Step 1: providers serve both versions. Nobody asks for the second one yet.
    async fn add_v2_to_providers(&mut self) -> Outcome {
        let began = Instant::now();
        self.roll_out("both", &IDENTITY_V1, |_| Build::Both).await?;
        let took = millis(began);
        let during = self.take("both")?;
        let mut counts = self.hold("both").await?;
        check_shared("both", "v1", &counts.v1)?;
        self.check_advertised("both", 3, 3).await?;
        counts.add(during);
        line("both", format_args!("providers now serve v1 and v2, restarted in {took}: {counts}"));
        Ok(())
    }

    /// Step 2: consumers are updated, one after the other; in between both versions are in use.
    async fn move_consumers(&mut self) -> Outcome {
        let (callers, broken) = (self.options.callers, self.options.broken);
        let mut during = Counts::default();
        for consumer in &mut self.consumers {
            if broken == Some(Break::Move) && consumer.node.id() == "vicky-2" {
                continue;
            }
            // The new build is up before the old one goes.
            consumer.call_v2(callers).await?;
            if let Some(load) = consumer.on_v1.take() {
                during.v1 += load.stop().await;
            }
            sleep(self.options.hold).await;
        }
        self.count("move", &during)?;
        during.add(self.take("move")?);
        // The providers know best whether somebody is still behind: their counters say when v1 may go.
        let before = self.calls_of_v1();
        let mut counts = self.hold("move").await?;
        let behind = self.calls_of_v1() - before;
        if behind != 0 {
            return Err(format!("move: v1 was called {behind} times more: it cannot go yet").into());
        }
        check_shared("move", "v2", &counts.v2)?;
        counts.add(during);
        line("move", format_args!("consumers now call v2, and v1 is asked by nobody: {counts}"));
        Ok(())
    }

    /// Step 3: providers serve the second version only.
    async fn remove_v1_from_providers(&mut self) -> Outcome {
        if self.options.broken == Some(Break::Remove)
            && let Some(consumer) = self.consumers.last_mut()
        {
            consumer.call_v1(self.options.callers).await?;
        }
        let began = Instant::now();
        let keeper = PROVIDERS.last().filter(|_| self.options.broken == Some(Break::Definitions));
        let build = |id: &str| if keeper == Some(&id) { Build::Both } else { Build::V2 };
        self.roll_out("remove", &IDENTITY_V2, build).await?;
        let took = millis(began);
        let during = self.take("remove")?;
        let mut counts = self.hold("remove").await?;
        check_shared("remove", "v2", &counts.v2)?;
        counts.add(during);
        line("remove", format_args!("providers now serve v2 alone, restarted in {took}: {counts}"));
        Ok(())
    }

    /// Step 4: the proto of v1 is deleted, and its stubs with it: nobody can be built with v1 any more.
    ///
    /// A consumer that was built before turns up late. It is told what there is, by its own copy of the directory; one
    /// that has no more than a provider's address is told that v1 is not there.
    async fn remove_definitions_of_v1(&mut self) -> Outcome {
        let seeds: Vec<_> = self.providers.iter().map(Provider::address).collect();
        let late = Consumer::new("vicky-3", &seeds, self.certs)?;
        let told = refused(&late.pool).await?;
        match Error::from_status(&told) {
            Some(Error::NoProviders { explanation, .. })
                if explanation.other_versions == [IDENTITY_V2.version().clone()] => {}
            _ => return Err(format!("definitions: not told what there is, but {told:?}").into()),
        }

        let issued = strangers::issue(self.certs, "vicky-4", "storage")?;
        let mut answers = Vec::new();
        for provider in &self.providers {
            let tls = TlsOptions::files(&issued.certificate, &issued.key, &issued.ca);
            let pool = ServicePool::builder()
                .tls(tls.allow_development())
                .provider(provider.server.node().id().as_str(), provider.address(), [IDENTITY_V1])
                .build()?;
            let status = refused(&pool).await?;
            if status.code() != Code::Unimplemented {
                return Err(format!("definitions: {}", text(status)).into());
            }
            answers.push(text(status));
        }
        self.check_advertised("definitions", 0, 3).await?;
        let counts = self.hold("definitions").await?;
        check_shared("definitions", "v2", &counts.v2)?;
        line("definitions", format_args!("nobody is built with v1 any more: {counts}"));
        line("", format_args!("a consumer that is late reads {}", text(told)));
        if let Some(answer) = answers.first() {
            line("", format_args!("and from each provider itself {answer}"));
        }
        Ok(())
    }

    async fn end(mut self) -> Outcome {
        for consumer in &mut self.consumers {
            for load in [consumer.on_v1.take(), consumer.on_v2.take()].into_iter().flatten() {
                let last = Counts { v2: load.stop().await, ..Counts::default() };
                if let Some(failure) = last.failure() {
                    return Err(failure.into());
                }
                self.total.add(last);
            }
        }
        for provider in self.providers {
            provider.server.shutdown().await?;
        }
        line("done", format_args!("{}", self.total));
        Ok(())
    }

    /// Restarts the providers one after the other, each with a new build at its old address.
    ///
    /// A shutdown drains: callers turn to the others before the connections close, and calls under way are answered.
    /// The next provider waits until callers of `version` have this one back, so two of three are always there.
    async fn roll_out(
        &mut self,
        step: &str,
        version: &ServiceInfo,
        build: impl Fn(&str) -> Build,
    ) -> Outcome {
        let seeds: Vec<_> = self.providers.iter().map(Provider::address).collect();
        let old = std::mem::take(&mut self.providers);
        for ((id, old), address) in PROVIDERS.into_iter().zip(old).zip(&seeds) {
            if step == "both"
                && self.options.broken == Some(Break::Both)
                && self.providers.is_empty()
            {
                // A crash, and a port that is free only a moment later.
                drop(old);
                self.deploy(id, "127.0.0.1:0", &seeds, build(id)).await?;
            } else {
                old.server.shutdown().await?;
                self.deploy(id, address, &seeds, build(id)).await?;
            }
            for consumer in &self.consumers {
                consumer.pool.channel(version.clone()).wait_ready(PROVIDERS.len(), SEEN).await?;
            }
        }
        Ok(())
    }

    async fn deploy(&mut self, id: &str, address: &str, seeds: &[String], build: Build) -> Outcome {
        let provider = Provider::deploy(id, address, seeds, self.certs, build).await?;
        self.providers.push(provider);
        Ok(())
    }

    /// Lets calls go on for a while and says what came of them.
    async fn hold(&mut self, step: &str) -> Outcome<Counts> {
        sleep(self.options.hold).await;
        self.take(step)
    }

    fn take(&mut self, step: &str) -> Outcome<Counts> {
        let mut counts = Counts::default();
        for consumer in &self.consumers {
            counts.add(consumer.take());
        }
        self.count(step, &counts)?;
        Ok(counts)
    }

    fn count(&mut self, step: &str, counts: &Counts) -> Outcome {
        self.total.add(counts.clone());
        counts.failure().map_or(Ok(()), |failure| Err(format!("{step}: {failure}").into()))
    }

    fn calls_of_v1(&self) -> u64 {
        self.providers.iter().map(|provider| provider.v1.calls()).sum()
    }

    /// What the directory says has to be what the step is about.
    async fn check_advertised(&self, step: &str, v1: usize, v2: usize) -> Outcome {
        for consumer in &self.consumers {
            let expected = |snapshot: &aegis::Snapshot| {
                snapshot.providers(&IDENTITY_V1).len() == v1
                    && snapshot.providers(&IDENTITY_V2).len() == v2
            };
            if consumer.node.directory().wait_for(expected, SEEN).await.is_err() {
                return Err(format!(
                    "{step}: {} does not see {v1} providers of v1 and {v2} of v2",
                    consumer.node.id()
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Each provider has to have answered some of the calls.
fn check_shared(step: &str, version: &str, tally: &Tally) -> Outcome {
    match PROVIDERS.iter().find(|id| !tally.by_provider.contains_key(**id)) {
        None => Ok(()),
        Some(id) => Err(format!("{step}: {id} answered no call of {version}").into()),
    }
}

/// Asks for v1, which nobody is to answer.
async fn refused(pool: &ServicePool) -> Outcome<Status> {
    let identity = ServiceClient::new(pool, IDENTITY_V1, IdentityV1Client::new);
    let request = v1::GetUserRequest { user_id: "7".to_owned() };
    match identity.get()?.get_user(request).await {
        Ok(answer) => {
            let provider = answer.into_inner().name;
            Err(format!("definitions: {provider} still serves v1").into())
        }
        Err(status) => Ok(status),
    }
}

fn parse() -> Outcome<Option<Options>> {
    let mut options = Options { callers: 4, hold: Duration::from_millis(150), broken: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("callers") => options.callers = args::value("callers", &mut parser)?,
            Long("hold") => options.hold = args::duration("hold", &mut parser)?,
            Long("break") => {
                options.broken = Some(args::choice("break", &mut parser, &BREAKS)?);
            }
            Long("help") => return Ok(None),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    if options.callers == 0 {
        return Err("--callers must be 1 at least".into());
    }
    Ok(Some(options))
}
