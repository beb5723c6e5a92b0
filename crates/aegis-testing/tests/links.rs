//! Faults of links, below TLS: bytes in, bytes out.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::Address;
use aegis_testing::{Direction, Faults, MemoryNetwork};
use aegis_transport::{BoxIo, Listener, Network, Tcp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

const MILLIS: Duration = Duration::from_millis(1);
/// Time enough for anything that may happen at all; paused time passes at once.
const WHILE: Duration = Duration::from_secs(3_600);

/// The node `b`, and a network for `c` who dials it.
struct Link {
    faults: Faults,
    network: Arc<dyn Network>,
    listener: Box<dyn Listener>,
    address: Address,
}

impl Link {
    async fn in_memory() -> Self {
        Self::over(Arc::new(MemoryNetwork::new()), Faults::seeded(1)).await
    }

    async fn over(network: Arc<dyn Network>, faults: Faults) -> Self {
        let listener = faults.network_of("b", Arc::clone(&network));
        let listener = listener.bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().into();
        Self { network: faults.network_of("c", network), faults, listener, address }
    }

    async fn dial(&self) -> std::io::Result<BoxIo> {
        self.network.connect(&self.address).await
    }

    /// Both ends of a new connection.
    async fn open(&mut self) -> (BoxIo, BoxIo) {
        let (near, far) = tokio::join!(self.network.connect(&self.address), self.listener.accept());
        (near.unwrap(), far.unwrap())
    }
}

async fn send(io: &mut BoxIo, text: &str) {
    io.write_all(text.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
}

#[track_caller]
fn check(read: &std::io::Result<String>, expected: &str) {
    match read {
        Ok(text) => assert_eq!(text, expected),
        Err(error) => panic!("{error} instead of {expected:?}"),
    }
}

/// So many bytes, as text.
async fn receive(io: &mut BoxIo, count: usize) -> std::io::Result<String> {
    let mut bytes = vec![0; count];
    io.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

async fn passes(one: &mut BoxIo, other: &mut BoxIo) {
    for text in ["ping", "once more"] {
        send(one, text).await;
        check(&receive(other, text.len()).await, text);
        send(other, text).await;
        check(&receive(one, text.len()).await, text);
    }
}

/// Nothing comes, and nothing breaks.
async fn is_silent(io: &mut BoxIo) {
    looks(io, WHILE).await;
}

/// Looks for bytes for a while, as the driver of a connection always does: it brings on what is on its way to the node.
async fn looks(io: &mut BoxIo, limit: Duration) {
    assert!(timeout(limit, io.read(&mut [0])).await.is_err(), "it is not silent");
}

async fn is_closed(io: &mut BoxIo) {
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
}

async fn is_reset(io: &mut BoxIo) {
    assert_eq!(io.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(io.write(&[0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_wrong_until_it_is_told_so() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    passes(&mut near, &mut far).await;
    assert_eq!(near.peer_addr(), far.local_addr());
    near.shutdown().await.unwrap();
    is_closed(&mut far).await;
    drop(far);
    is_closed(&mut near).await;
}

#[tokio::test(start_paused = true)]
async fn refused_connections_are_new_ones() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").refuse();
    assert_eq!(link.dial().await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    passes(&mut near, &mut far).await;
    link.faults.to("b").heal();
    let (mut near, mut far) = link.open().await;
    passes(&mut near, &mut far).await;
    assert_eq!((link.faults.to("b").dials(), link.faults.to("b").connections()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_takes_connections_and_gets_everything_later() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").hang();
    send(&mut near, "a request").await;
    send(&mut far, "an answer").await;
    is_silent(&mut near).await;
    is_silent(&mut far).await;
    let mut new = link.dial().await.unwrap();
    send(&mut new, "hello").await;
    is_silent(&mut new).await;
    assert!(timeout(WHILE, link.listener.accept()).await.is_err(), "somebody accepted it");

    // Whoever waits for bytes already hears of the end.
    let healing = link.faults.to("b");
    let (read, ()) = tokio::join!(receive(&mut near, 9), async move {
        healing.heal();
    });
    check(&read, "an answer");
    check(&receive(&mut far, 9).await, "a request");
    let (mut accepted, ()) = tokio::join!(
        async { link.listener.accept().await.unwrap() },
        // The dialler's end brings it on.
        looks(&mut new, WHILE)
    );
    check(&receive(&mut accepted, 5).await, "hello");
    passes(&mut near, &mut far).await;
}

#[tokio::test(start_paused = true)]
async fn a_dialler_can_send_so_much_to_a_node_that_does_not_read() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").stop_reading();
    let (mut sent, piece) = (0, [7; 10_000]);
    while let Ok(count) = timeout(WHILE, near.write(&piece)).await {
        sent += count.unwrap();
    }
    assert_eq!(sent, 64 * 1024);
    is_silent(&mut far).await;
    // The other direction is well.
    send(&mut far, "are you there?").await;
    check(&receive(&mut near, 14).await, "are you there?");

    link.faults.heal();
    let mut all = vec![0; sent + piece.len()];
    let (written, read) = tokio::join!(near.write_all(&piece), far.read_exact(&mut all));
    written.unwrap();
    read.unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_has_heard() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").stop_answering();
    send(&mut near, "a request").await;
    check(&receive(&mut far, 9).await, "a request");
    send(&mut far, "an answer").await;
    is_silent(&mut near).await;
    link.faults.to("b").heal();
    check(&receive(&mut near, 9).await, "an answer");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_answers_no_dial_and_lets_it_through_when_it_is_healed() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").black_hole();
    let mut dialling = link.network.connect(&link.address);
    assert!(timeout(WHILE, &mut dialling).await.is_err(), "a dial was answered");
    send(&mut near, "x").await;
    is_silent(&mut far).await;
    link.faults.to("b").heal();
    let (mut new, mut accepted) = {
        let (new, accepted) = tokio::join!(dialling, link.listener.accept());
        (new.unwrap(), accepted.unwrap())
    };
    passes(&mut new, &mut accepted).await;
    // The held byte goes when its connection is looked at.
    let ((), read) = tokio::join!(looks(&mut near, MILLIS), receive(&mut far, 1));
    check(&read, "x");
}

#[tokio::test(start_paused = true)]
async fn bytes_take_their_time_each_way_and_stay_in_order() {
    let mut link = Link::in_memory().await;
    link.faults.to("b").delay(20 * MILLIS);
    let began = Instant::now();
    let (mut near, mut far) = link.open().await;
    assert_eq!(began.elapsed().as_millis(), 40, "a dial goes there and back");

    let began = Instant::now();
    // Writing is no matter of time, reading is.
    send(&mut near, "a request").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let answer = async {
        check(&receive(&mut far, 9).await, "a request");
        send(&mut far, "an answer").await;
        far.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(receive(&mut near, 9), answer);
    check(&read, "an answer");
    is_closed(&mut near).await;
    let took = began.elapsed().as_millis();
    assert!((40..44).contains(&took), "{took} ms there and back");

    // A later byte does not overtake an earlier one.
    let (mut near, mut far) = link.open().await;
    send(&mut near, "slow").await;
    link.faults.to("b").heal();
    send(&mut near, "quick").await;
    let (read, ()) = tokio::join!(receive(&mut far, 9), looks(&mut near, WHILE));
    check(&read, "slowquick");
}

/// When each of some pieces arrives.
async fn arrivals(seed: u64) -> Vec<u128> {
    let mut link = Link::over(Arc::new(MemoryNetwork::new()), Faults::seeded(seed)).await;
    let (mut near, mut far) = link.open().await;
    link.faults.between("b", "c").delay(5 * MILLIS..=500 * MILLIS);
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        send(&mut far, "x").await;
        check(&receive(&mut near, 1).await, "x");
        times.push(began.elapsed().as_millis());
    }
    times
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_draws_the_same_delays() {
    let times = arrivals(1).await;
    assert_eq!(times, arrivals(1).await);
    assert_ne!(times, arrivals(2).await);
    assert!(times.iter().all(|time| (5..=502).contains(time)), "{times:?}");
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(least * 4 < *most, "{times:?} are all alike");
}

#[tokio::test(start_paused = true)]
async fn a_slow_accept_delays_the_first_byte_and_not_the_dial() {
    let mut link = Link::in_memory().await;
    let (mut old, mut old_far) = link.open().await;
    link.faults.to("b").slow_accept(200 * MILLIS);
    let began = Instant::now();
    let mut near = link.dial().await.unwrap();
    send(&mut near, "hello").await;
    passes(&mut old, &mut old_far).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let accepted = async {
        let mut far = link.listener.accept().await.unwrap();
        check(&receive(&mut far, 5).await, "hello");
        send(&mut far, "welcome").await;
        far
    };
    let (read, _far) = tokio::join!(receive(&mut near, 7), accepted);
    check(&read, "welcome");
    let took = began.elapsed().as_millis();
    assert!((200..203).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_cut_after_so_many_bytes_in_one_direction() {
    for direction in [Direction::ToNode, Direction::FromNode] {
        let mut link = Link::in_memory().await;
        let (mut old, mut old_far) = link.open().await;
        passes(&mut old, &mut old_far).await;
        link.faults.to("b").cut_after(direction, 5);
        // What passed before does not count, and each connection has its own five.
        let (new, new_far) = link.open().await;
        for (mut near, mut far) in [(old, old_far), (new, new_far)] {
            let (sender, receiver) = match direction {
                Direction::ToNode => (&mut near, &mut far),
                _ => (&mut far, &mut near),
            };
            // The other direction has no limit.
            send(receiver, "back and forth").await;
            check(&receive(sender, 14).await, "back and forth");
            send(sender, "123").await;
            check(&receive(receiver, 3).await, "123");
            assert!(0 < sender.write(b"4567").await.unwrap());
            check(&receive(receiver, 2).await, "45");
            is_reset(&mut near).await;
            is_closed(&mut far).await;
        }
        link.faults.to("b").heal();
        let (mut near, mut far) = link.open().await;
        passes(&mut near, &mut far).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_breaks_the_connections_that_there_are_and_wakes_who_waits() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    let cutting = link.faults.to("b");
    let (read, ()) = tokio::join!(receive(&mut near, 1), async move {
        cutting.cut();
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    is_reset(&mut near).await;
    is_closed(&mut far).await;
    let (mut near, mut far) = link.open().await;
    passes(&mut near, &mut far).await;
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_gone_for_the_node_and_open_for_its_dialler() {
    let mut link = Link::in_memory().await;
    let (mut near, mut far) = link.open().await;
    link.faults.to("b").half_open();
    send(&mut near, "are you there?").await;
    is_silent(&mut near).await;
    is_closed(&mut far).await;
    let (mut new, mut new_far) = link.open().await;
    passes(&mut new, &mut new_far).await;
    link.faults.to("b").heal();
    is_reset(&mut near).await;
    passes(&mut new, &mut new_far).await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_between_two_nodes_is_theirs_alone_and_counts_before_one_for_all() {
    let mut link = Link::in_memory().await;
    let memory = MemoryNetwork::new();
    let other = link.faults.network_of("d", Arc::new(memory));
    assert_eq!(link.faults.between("c", "b").dials(), 0);
    link.faults.between("c", "b").refuse();
    assert!(link.dial().await.is_err());
    // Another dialler is refused by the network itself, where nobody listens.
    let refused = other.connect(&link.address).await.err().unwrap().to_string();
    assert!(refused.contains("nobody listens"), "{refused}");
    assert_eq!((link.faults.between("b", "c").dials(), link.faults.to("b").dials()), (1, 2));

    link.faults.to("b").refuse();
    link.faults.between("c", "b").heal();
    assert!(link.dial().await.is_err());
    // Slow and no more: that it is refused to others does not matter.
    link.faults.between("c", "b").hang();
    let mut near = link.dial().await.unwrap();
    is_silent(&mut near).await;
    link.faults.heal();
    let (mut near, mut far) = link.open().await;
    passes(&mut near, &mut far).await;
}

#[tokio::test]
async fn links_over_tcp_have_the_same_faults() {
    let mut link = Link::over(Arc::new(Tcp::default()), Faults::new()).await;
    let (mut near, mut far) = link.open().await;
    passes(&mut near, &mut far).await;
    let by_address = link.faults.to(link.address.to_string().replace("127.0.0.1", "localhost"));
    by_address.hang();
    send(&mut near, "later").await;
    assert!(timeout(50 * MILLIS, far.read(&mut [0])).await.is_err());
    by_address.heal();
    let ((), read) = tokio::join!(looks(&mut near, 50 * MILLIS), receive(&mut far, 5));
    check(&read, "later");

    link.faults.to("b").delay(20 * MILLIS);
    let began = Instant::now();
    let ((), read) = tokio::join!(
        async {
            send(&mut near, "slow").await;
            looks(&mut near, 50 * MILLIS).await;
        },
        receive(&mut far, 4)
    );
    check(&read, "slow");
    assert!(20 * MILLIS <= began.elapsed());

    link.faults.heal();
    link.faults.to("b").cut().refuse();
    is_reset(&mut near).await;
    is_closed(&mut far).await;
    assert_eq!(link.dial().await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
}
