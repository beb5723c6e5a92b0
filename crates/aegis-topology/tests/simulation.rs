//! Many replicas, lost calls, partitions, crashes, restarts and goodbyes: in the end all are equal, and nothing came back.
//!
//! One seed decides everything; it is printed on failure, and `SIMULATION_SEED` replays it. Rules broken on purpose show
//! that the simulation can fail.

use std::collections::HashMap;
use std::time::Duration;

use aegis_core::NodeId;
use aegis_topology::{
    Author, Exchange, Instance, Key, Limits, Merged, NodeState, Precedence, Progress, Replica,
    Timestamp,
};

use crate::fake::{HOUR, NOW, identity, record, sign, verify_at};

#[test]
fn replicas_become_equal_and_no_node_comes_back() {
    let seeds = match std::env::var("SIMULATION_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIMULATION_SEED is a number")],
        Err(_) => (0..24).collect(),
    };
    for seed in seeds {
        run(seed, Rule::Shipped);
    }
}

#[test]
fn the_simulation_catches_broken_rules() {
    for rule in [Rule::ForgetsFloors, Rule::IgnoresPrecedence] {
        let caught = (0..24).find(|seed| {
            let broken = std::panic::catch_unwind(|| run(*seed, rule)).err();
            broken.is_some_and(|why| why.downcast_ref::<String>().is_some_and(|it| it == WENT_BACK))
        });
        assert!(caught.is_some(), "{rule:?} passed");
    }
}

fn run(seed: u64, rule: Rule) {
    let mut mesh = Mesh::new(seed, [2, 3, 5, 12][usize::try_from(seed % 4).unwrap()], rule);
    mesh.unrest(60);
    mesh.quiet();
}

const WENT_BACK: &str = "a record went back";

/// How replicas decide what stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Shipped,
    /// What expired might never have been.
    ForgetsFloors,
    /// The last record that came stays.
    IgnoresPrecedence,
}

#[test]
fn one_change_reaches_a_hundred_nodes_in_a_few_rounds() {
    let mut mesh = Mesh::new(7, 100, Rule::Shipped);
    mesh.loss = 0;
    mesh.quiet();
    mesh.publish(0, NodeState::Draining);
    let rounds = mesh.rounds_until_equal();
    assert!(rounds <= 10, "{rounds} rounds");
}

struct Mesh {
    seed: u64,
    rule: Rule,
    random: Random,
    now: Timestamp,
    nodes: Vec<Node>,
    /// Calls that are lost, in percent.
    loss: u64,
    /// Nodes with different sides do not reach each other.
    sides: Vec<bool>,
}

struct Node {
    replica: Replica,
    author: Author,
    rule: Rule,
    /// Crashed and not restarted yet.
    down: bool,
    /// What it has seen of each owner in this run; never smaller.
    seen: HashMap<Key, Precedence>,
}

impl Mesh {
    fn new(seed: u64, count: usize, rule: Rule) -> Self {
        let mut mesh = Self {
            seed,
            rule,
            random: Random(seed),
            now: NOW,
            nodes: Vec::new(),
            loss: 30,
            sides: vec![false; count],
        };
        for at in 0..count {
            let node = mesh.start(at);
            mesh.nodes.push(node);
        }
        for at in 0..count {
            mesh.publish(at, NodeState::Active);
        }
        mesh
    }

    /// A run of a node, without memory of those before.
    fn start(&mut self, at: usize) -> Node {
        // All that the fake format keeps of it.
        let instance = Instance::from_bytes([self.random.next().to_be_bytes()[0]; 16]);
        let description = record("any", (0, 0), 1).description;
        let owner = identity(&format!("n{at}"));
        // Clocks are up to five minutes behind.
        let skew = Duration::from_secs(self.random.below(300));
        let clock = Timestamp::from_millis(self.now.as_millis() - millis(skew));
        let author = Author::new(owner, instance, description, None, clock);
        let mut replica = Replica::new(Limits::default());
        replica.own(author.key(), instance);
        Node { replica, author, rule: self.rule, down: false, seen: HashMap::new() }
    }

    fn publish(&mut self, at: usize, state: NodeState) {
        self.publish_until(at, state, NOW.saturating_add(24 * 300 * HOUR));
    }

    fn publish_until(&mut self, at: usize, state: NodeState, certificate_ends: Timestamp) {
        let now = self.now;
        let node = &mut self.nodes[at];
        node.author.set_state(state);
        let record = node.author.write(now, &Limits::default(), certificate_ends);
        node.take(vec![sign(&record)], now);
    }

    /// Things happen, and messages are lost.
    fn unrest(&mut self, steps: usize) {
        for _ in 0..steps {
            let at = self.any();
            if self.nodes[at].down {
                self.round();
                continue;
            }
            match self.random.below(20) {
                0 => self.restart(at),
                1 => self.publish(at, NodeState::Left),
                2 | 3 => self.publish(at, NodeState::Draining),
                4 => {
                    for side in &mut self.sides {
                        *side = self.random.below(2) == 0;
                    }
                }
                5 => self.sides.fill(false),
                6 => self.now = self.now.saturating_add(HOUR),
                7 => {
                    // Its last record ends before the one that some hold still.
                    let soon = self.now.saturating_add(HOUR / 6);
                    self.publish_until(at, NodeState::Draining, soon);
                    self.round();
                    self.nodes[at].down = true;
                }
                8 => self.restart_crashed(),
                _ => {}
            }
            self.round();
        }
    }

    fn restart(&mut self, at: usize) {
        self.nodes[at] = self.start(at);
        self.publish(at, NodeState::Active);
    }

    fn restart_crashed(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].down {
                self.restart(at);
            }
        }
    }

    /// Nothing happens any more, and messages arrive: all become equal.
    fn quiet(&mut self) {
        self.loss = 0;
        self.sides.fill(false);
        self.restart_crashed();
        self.rounds_until_equal();
        let (first, rest) = self.nodes.split_first().unwrap();
        for node in &self.nodes {
            let own = first.replica.record(node.author.key());
            let state = own.map(|record| (record.precedence(), record.record().state));
            let said = (node.author.precedence(), node.author.state());
            assert_eq!(state, Some(said), "seed {}: not the owner's last word", self.seed);
        }
        assert!(rest.iter().all(|node| node.replica.stamps().eq(first.replica.stamps())));
    }

    fn rounds_until_equal(&mut self) -> usize {
        for round in 0..200 {
            let root = self.nodes[0].replica.root();
            let all_known = self.nodes.iter().all(|it| it.replica.len() == self.nodes.len());
            if all_known && self.nodes.iter().all(|node| node.replica.root() == root) {
                return round;
            }
            self.round();
        }
        panic!("seed {}: not equal after 200 rounds", self.seed);
    }

    /// Each node forgets what is over, signs again what is due, and calls one other.
    fn round(&mut self) {
        self.now = self.now.saturating_add(Duration::from_secs(1));
        for at in 0..self.nodes.len() {
            if self.nodes[at].down {
                continue;
            }
            self.nodes[at].expire(self.now);
            if self.nodes[at].author.is_due(self.now, &Limits::default()) {
                let state = self.nodes[at].author.state();
                self.publish(at, state);
            }
            let other = self.any();
            if other != at {
                self.sync(at, other);
            }
        }
    }

    fn sync(&mut self, caller: usize, other: usize) {
        let own = self.nodes[caller].author.key();
        let (mut exchange, mut request) =
            Exchange::open(&self.nodes[caller].replica, Some(own), self.now);
        loop {
            if self.is_lost(caller, other) {
                return;
            }
            let now = self.now;
            self.nodes[other].take(request.records.clone(), now);
            let response = self.nodes[other].replica.answer(&request);
            // An answer may be lost too, after the question did its work.
            if self.is_lost(caller, other) {
                return;
            }
            self.nodes[caller].take(response.records.clone(), now);
            match exchange.proceed(&self.nodes[caller].replica, &response) {
                Progress::Call(next) => request = next,
                _ => return,
            }
        }
    }

    fn is_lost(&mut self, a: usize, b: usize) -> bool {
        let cut = self.sides[a] != self.sides[b] || self.nodes[a].down || self.nodes[b].down;
        cut || self.random.below(100) < self.loss
    }

    fn any(&mut self) -> usize {
        usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap()
    }
}

impl Node {
    fn expire(&mut self, now: Timestamp) {
        self.replica.expire(now);
        if self.rule == Rule::ForgetsFloors {
            self.rebuild(|_| true, now);
        }
    }

    /// A replica that knows only what it holds, and of that only some.
    fn rebuild(&mut self, keep: impl Fn(Key) -> bool, now: Timestamp) {
        let kept = self.replica.stamps().filter(|stamp| keep(stamp.key));
        let kept: Vec<_> =
            kept.filter_map(|stamp| self.replica.record(stamp.key).cloned()).collect();
        self.replica = Replica::new(Limits::default());
        self.replica.own(self.author.key(), self.author.instance());
        for record in kept {
            self.replica.merge(record, now);
        }
    }

    /// Merges as a driver does, and watches over what must never happen.
    fn take(&mut self, records: Vec<aegis_topology::SignedRecord>, now: Timestamp) {
        for record in records {
            let Ok(record) = verify_at(record, now) else { continue };
            let key = record.key();
            if self.rule == Rule::IgnoresPrecedence {
                self.rebuild(|held| held != key, now);
            }
            if let Merged::OwnIdentity(past) = self.replica.merge(record, now)
                && self.author.precedence() < past.precedence()
            {
                // A past life with a later clock.
                self.author.outbid(past.precedence());
                let lease = NOW.saturating_add(24 * 300 * HOUR);
                let record = sign(&self.author.write(now, &Limits::default(), lease));
                return self.take(vec![record], now);
            }
            let Some(held) = self.replica.record(key) else { continue };
            let seen = self.seen.entry(key).or_default();
            if held.precedence() < *seen {
                // With a payload that tells this failure from others.
                std::panic::panic_any(WENT_BACK.to_owned());
            }
            *seen = held.precedence();
            let id: &NodeId = held.record().owner.node_id();
            assert_eq!(Key::of(held.record().owner.trust_domain(), id), key);
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
