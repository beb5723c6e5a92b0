//! Floods of frames: the server's memory stays small, and others are served.

use std::time::{Duration, Instant};

use aegis_node::Limits;
use aegis_testing::eventually;
use tokio::time::timeout;

use crate::support::{
    Child, END_HEADERS, END_STREAM, Frames, Kind, LIMIT, Peer, dial, listen, node, put,
    request_block,
};

const BATCHES: u32 = 100;
const BATCH: u32 = 1_000;
/// What a flood of 100,000 frames may cost: generous, and a tenth of what plain tonic holds for 100,000 open streams.
const MEMORY: u64 = 64 << 20;
const STREAMS: u32 = 256;
const REFUSED_STREAM: u32 = 7;

#[tokio::test]
async fn no_more_streams_are_open_than_were_announced() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    let settings = frames.next(Kind::Settings).await;
    let announced = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(announced.unwrap()[2..], STREAMS.to_be_bytes());
    let block = request_block("/test.Lab/Forever");
    let mut bytes = Vec::new();
    for index in 0..2 * STREAMS {
        put(&mut bytes, Kind::Headers, END_HEADERS, 2 * index + 1, &block);
    }
    frames.write(&bytes).await;
    for index in STREAMS..2 * STREAMS {
        let reset = frames.next(Kind::Reset).await;
        assert_eq!((reset.stream, reset.word(0)), (2 * index + 1, REFUSED_STREAM));
    }
    eventually(LIMIT, || match lab.seen.calls() {
        calls if calls == u64::from(STREAMS) => Ok(()),
        calls => Err(format!("{calls} calls came")),
    })
    .await;
    // One that ends makes room for another.
    frames.send(Kind::Reset, 0, 1, &8_u32.to_be_bytes()).await;
    frames
        .send(
            Kind::Headers,
            END_HEADERS | END_STREAM,
            4 * STREAMS + 1,
            &request_block("/test.Lab/Seen"),
        )
        .await;
    assert_eq!(frames.next(Kind::Data).await.stream, 4 * STREAMS + 1);
}

struct Flood {
    name: &'static str,
    /// What is sent once, before.
    first: Vec<u8>,
    /// The frames with the number so-and-so.
    frames: fn(&mut Vec<u8>, u32),
    reads: bool,
    /// The server ends the connection before the flood does.
    ends: bool,
}

impl Flood {
    fn new(name: &'static str, frames: fn(&mut Vec<u8>, u32)) -> Self {
        Self { name, first: Vec::new(), frames, reads: true, ends: false }
    }

    /// Beside an open stream, with the id 1.
    fn on_a_stream(mut self) -> Self {
        put(&mut self.first, Kind::Headers, END_HEADERS, 1, &request_block("/test.Lab/Forever"));
        self
    }

    fn that_is_ended(self) -> Self {
        Self { ends: true, ..self }
    }

    fn deaf(self) -> Self {
        Self { reads: false, ..self }
    }
}

fn open(bytes: &mut Vec<u8>, index: u32) {
    put(bytes, Kind::Headers, END_HEADERS, 2 * index + 1, &request_block("/test.Lab/Forever"));
}

fn floods() -> Vec<Flood> {
    vec![
        Flood::new("open streams", open).that_is_ended(),
        Flood::new("streams that are reset at once", |bytes, index| {
            open(bytes, index);
            put(bytes, Kind::Reset, 0, 2 * index + 1, &8_u32.to_be_bytes());
        })
        .that_is_ended(),
        // A window that grows too large is an error, for which the server has to reset the stream itself.
        Flood::new("streams that the server has to reset", |bytes, index| {
            open(bytes, index);
            put(bytes, Kind::WindowUpdate, 0, 2 * index + 1, &0x7fff_ffff_u32.to_be_bytes());
        })
        .that_is_ended(),
        Flood::new("headers without an end", |bytes, index| {
            let kind = if index == 0 { Kind::Headers } else { Kind::Continuation };
            put(bytes, kind, 0, 1, &request_block("/test.Lab/Forever"));
        })
        .that_is_ended(),
        Flood::new("empty data", |bytes, _| put(bytes, Kind::Data, 0, 1, &[]))
            .on_a_stream()
            .that_is_ended(),
        Flood::new("single bytes that nobody reads", |bytes, _| put(bytes, Kind::Data, 0, 1, &[7]))
            .on_a_stream(),
        Flood::new("more data than the window", |bytes, index| {
            if index < BATCH {
                put(bytes, Kind::Data, 0, 1, &[7; 1_000]);
            }
        })
        .on_a_stream(),
        Flood::new("headers that grow when they are read", |bytes, index| {
            if index < BATCH {
                // A field of 4,000 bytes that goes into the table, and 10,000 references to it.
                let mut block = request_block("/test.Lab/Seen");
                block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
                block.extend([b'y'; 4_000]);
                block.extend([0xbe; 10_000]);
                put(bytes, Kind::Headers, END_HEADERS | END_STREAM, 2 * index + 1, &block);
            }
        })
        .that_is_ended(),
        Flood::new("pings", |bytes, _| put(bytes, Kind::Ping, 0, 0, &[7; 8])),
        Flood::new("pings, deaf", |bytes, _| put(bytes, Kind::Ping, 0, 0, &[7; 8])).deaf(),
        Flood::new("settings", |bytes, _| put(bytes, Kind::Settings, 0, 0, &[])),
        Flood::new("settings, deaf", |bytes, _| put(bytes, Kind::Settings, 0, 0, &[])).deaf(),
        Flood::new("priorities of streams that are not there", |bytes, index| {
            put(bytes, Kind::Priority, 0, 2 * index + 1, &[0; 5]);
        }),
        Flood::new("frames that nobody knows", |bytes, _| put(bytes, Kind::Other, 0, 0, &[7; 16])),
        Flood::new("calls whose answers nobody reads", |bytes, index| {
            let block = request_block("/test.Lab/Seen");
            put(bytes, Kind::Headers, END_HEADERS | END_STREAM, 2 * index + 1, &block);
        })
        .deaf(),
        Flood::new("resets of streams that are not there", |bytes, index| {
            put(bytes, Kind::Reset, 0, 2 * index + 1, &8_u32.to_be_bytes());
        }),
    ]
}

#[tokio::test]
async fn a_flood_costs_little_memory_and_nobody_elses_calls() {
    let child = Child::start();
    let honest = Peer::connect(&child.ca, "honest", child.address).await;
    honest.ask().await;
    for (number, flood) in floods().into_iter().enumerate() {
        let before = child.memory();
        let began = Instant::now();
        let mut frames = Frames::connect(&child.ca, &format!("f{number}"), child.address).await;
        frames.write(&flood.first).await;
        let mut taken = 0;
        for batch in 0..BATCHES {
            let mut bytes = Vec::new();
            for index in batch * BATCH..(batch + 1) * BATCH {
                (flood.frames)(&mut bytes, index);
            }
            let poured = if flood.reads {
                frames.pour(&bytes).await
            } else {
                frames.pour_deaf(&bytes).await
            };
            if !poured {
                break;
            }
            taken = (batch + 1) * BATCH;
        }
        // While its connection is there.
        let grown = child.memory().saturating_sub(before);
        println!("{}: {taken} frames in {:?}, {} KiB", flood.name, began.elapsed(), grown >> 10);
        assert!(!flood.ends || taken < BATCHES * BATCH, "nothing ended {}", flood.name);
        assert!(grown < MEMORY, "{} cost {} MiB", flood.name, grown >> 20);
        let asked = timeout(Duration::from_secs(2), honest.ask()).await;
        asked.unwrap_or_else(|_| panic!("the honest peer waits beside {}", flood.name));
    }
    Peer::connect(&child.ca, "late", child.address).await.ask().await;
}

/// `AEGIS_SEED` replays a run.
#[tokio::test]
async fn no_sequence_of_frames_breaks_more_than_its_connection() {
    let (lines, _guard) = listen();
    let seed = std::env::var("AEGIS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("AEGIS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mesh, server, _lab) = node(Limits::default()).await;
    let honest = Peer::connect(mesh.ca(), "honest", server.local_addr()).await;
    let tls = mesh.ca().tls("wild", "test");
    for _ in 0..100 {
        let mut frames = Frames::over(dial(&tls, server.local_addr()).await.unwrap()).await;
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..40) {
            any_frame(&mut bytes, &mut random);
        }
        frames.pour(&bytes).await;
        honest.ask().await;
    }
    eventually(LIMIT, || match server.stats().connections {
        1 => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    assert!(!lines.text().contains("ERROR"), "{}", lines.text());
}

/// A frame as a peer might send it, or one that is wrong in any point.
fn any_frame(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let kinds = [
        Kind::Data,
        Kind::Headers,
        Kind::Headers,
        Kind::Priority,
        Kind::Reset,
        Kind::Settings,
        Kind::Ping,
        Kind::GoAway,
        Kind::WindowUpdate,
        Kind::Continuation,
        Kind::Other,
    ];
    let kind = kinds[random.usize(..kinds.len())];
    let method = ["Seen", "Echo", "Forever", "Ticks", "Sink"][random.usize(..5)];
    let mut payload = match kind {
        Kind::Headers | Kind::Continuation => request_block(&format!("/test.Lab/{method}")),
        Kind::Settings => [&[0, random.u8(1..9)][..], &random.u32(..).to_be_bytes()].concat(),
        Kind::Ping | Kind::GoAway => vec![0; 8],
        Kind::Priority => vec![0; 5],
        Kind::Reset | Kind::WindowUpdate => random.u32(..1 << 20).to_be_bytes().to_vec(),
        _ => vec![0; random.usize(..64)],
    };
    // One in eight is damaged.
    if random.u8(..8) == 0 && !payload.is_empty() {
        let at = random.usize(..payload.len());
        payload[at] = random.u8(..);
        payload.truncate(random.usize(..=payload.len()));
    }
    let flags = if random.bool() { END_HEADERS | END_STREAM } else { random.u8(..) };
    let connection = matches!(kind, Kind::Settings | Kind::Ping | Kind::GoAway);
    let stream = if connection || random.u8(..8) == 0 { 0 } else { 2 * random.u32(..12) + 1 };
    let flags = if connection { random.u8(..2) } else { flags };
    put(bytes, kind, flags, stream, &payload);
}
