use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aegis_transport::{BoxFuture, BoxIo, Io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::link::Direction;
use super::queue::Queue;
use super::rules::{Ends, Rule, Shared, State, Wakers};
use super::seed::Draws;
use super::way::Way;

/// What a dialler may send before it is read: about what a socket holds.
const HELD: usize = 64 * 1024;
/// What is in flight on a slow link, in one direction.
const IN_FLIGHT: usize = 1024 * 1024;
const PIECE: usize = 16 * 1024;

/// The dialler's end of a connection, and all that is wrong with it.
pub(crate) struct FaultyStream {
    shared: Arc<Shared>,
    ends: Ends,
    /// What holds, and the version at which it was looked at.
    rule: Rule,
    seen: u64,
    far: Far,
    fate: Fate,
    /// Until the node accepts it.
    accept: Option<Pin<Box<Sleep>>>,
    to_node: Way,
    from_node: Way,
    wakers: Arc<Wakers>,
}

/// Where the bytes go.
enum Far {
    /// The node has not taken the connection.
    Dialling(BoxFuture<'static, io::Result<BoxIo>>),
    Gone,
    Open(BoxIo),
}

enum Fate {
    Cut(io::ErrorKind, String),
    /// Half open, with what its dialler has sent since.
    Lost(usize),
    Well,
}

impl FaultyStream {
    pub(crate) fn accepted(
        shared: Arc<Shared>,
        ends: Ends,
        seen: (Rule, u64),
        draws: [Draws; 2],
        io: BoxIo,
    ) -> Self {
        Self::new(shared, ends, seen, draws, Far::Open(io))
    }

    /// One that nobody takes before it is no longer hanging, or before this time.
    pub(crate) fn unaccepted(
        shared: Arc<Shared>,
        ends: Ends,
        seen: (Rule, u64),
        draws: [Draws; 2],
        dial: BoxFuture<'static, io::Result<BoxIo>>,
        accept: Option<Duration>,
    ) -> Self {
        let mut stream = Self::new(shared, ends, seen, draws, Far::Dialling(dial));
        stream.accept = accept.map(|accept| Box::pin(sleep(accept)));
        stream
    }

    fn new(
        shared: Arc<Shared>,
        ends: Ends,
        (rule, seen): (Rule, u64),
        [to_node, from_node]: [Draws; 2],
        far: Far,
    ) -> Self {
        let wakers = Arc::new(Wakers::default());
        shared.opened(&ends, &wakers);
        Self {
            shared,
            ends,
            rule,
            seen,
            far,
            fate: Fate::Well,
            accept: None,
            to_node: Way::new(Direction::ToNode, to_node),
            from_node: Way::new(Direction::FromNode, from_node),
            wakers,
        }
    }

    /// Takes note of what was set since the last time.
    fn look(&mut self) {
        if self.shared.version() == self.seen {
            return;
        }
        let (rule, seen) = self.shared.rule(&self.ends);
        let before = std::mem::replace(&mut self.rule, rule);
        self.seen = seen;
        if before.limit != rule.limit {
            self.to_node.passed_before = self.to_node.passed;
            self.from_node.passed_before = self.from_node.passed;
        }
        if rule.accept.is_none() {
            self.accept = None;
        }
        let (cut, lost) = (before.cuts < rule.cuts, before.losses < rule.losses);
        let healed = before.heals < rule.heals && (lost || matches!(self.fate, Fate::Lost(_)));
        if cut || healed {
            self.cut();
        } else if lost && matches!(self.fate, Fate::Well) {
            self.end(Fate::Lost(0));
        }
    }

    fn cut(&mut self) {
        let text = format!("a fault of this test cut the connection to {}", self.ends.to);
        self.end(Fate::Cut(io::ErrorKind::ConnectionReset, text));
    }

    fn fail(&mut self, error: &io::Error) {
        self.end(Fate::Cut(error.kind(), error.to_string()));
    }

    /// Closes the node's end.
    fn end(&mut self, fate: Fate) {
        if matches!(self.fate, Fate::Cut(..)) {
            return;
        }
        self.fate = fate;
        self.far = Far::Gone;
        self.accept = None;
        self.to_node.queue = Queue::default();
        self.from_node.queue = Queue::default();
        self.wakers.wake();
    }

    /// Whether bytes that go this way have to wait.
    fn holds(&self, direction: Direction) -> bool {
        self.accept.is_some() || self.rule.state.is_some_and(|state| state.holds(direction))
    }

    /// Brings what is on its way to the node on.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(accept) = &mut self.accept
            && accept.as_mut().poll(cx).is_ready()
        {
            self.accept = None;
        }
        if self.to_node.left(&self.rule) == 0 || self.from_node.left(&self.rule) == 0 {
            self.cut();
        }
        let stopped = matches!(self.rule.state, Some(State::BlackHole | State::Hanging));
        if let Far::Dialling(dial) = &mut self.far
            && !stopped
            && self.accept.is_none()
            && let Poll::Ready(dialled) = dial.as_mut().poll(cx)
        {
            match dialled {
                Ok(io) => self.far = Far::Open(io),
                Err(error) => self.fail(&error),
            }
        }
        if !self.to_node.queue.is_empty() || self.to_node.end.is_some() {
            self.deliver(cx);
        }
    }

    /// Writes what has arrived at the node.
    fn deliver(&mut self, cx: &mut Context<'_>) {
        let (mut moved, now) = (false, Instant::now());
        while !self.holds(Direction::ToNode)
            && let Far::Open(io) = &mut self.far
        {
            let io = Pin::new(io);
            let way = &mut self.to_node;
            let left = way.left(&self.rule);
            let written = if let Some(bytes) = way.queue.front(now) {
                io.poll_write(cx, bytes.get(..left).unwrap_or(bytes))
            } else if let Some(due) = way.queue.due() {
                if way.poll_until(cx, due).is_ready() {
                    return self.deliver(cx);
                }
                break;
            } else {
                if way.end.is_some() && io.poll_shutdown(cx).is_ready() {
                    way.end = None;
                }
                break;
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) => {
                    way.pass(count);
                    way.queue.advance(count);
                    moved = true;
                    if way.left(&self.rule) == 0 || count == 0 {
                        self.cut();
                    }
                }
                Poll::Ready(Err(error)) => self.fail(&error),
            }
        }
        if let (true, Far::Open(io)) = (moved, &mut self.far) {
            // What fails here fails at the next write as well.
            drop(Pin::new(io).poll_flush(cx));
            self.wakers.wake();
        }
    }

    /// What nothing stands in the way of.
    fn open(&mut self, direction: Direction) -> Option<Pin<&mut BoxIo>> {
        let way = match direction {
            Direction::FromNode => &self.from_node,
            Direction::ToNode => &self.to_node,
        };
        if self.holds(direction) || self.rule.delay.is_some() || !way.queue.is_empty() {
            return None;
        }
        match &mut self.far {
            Far::Open(io) => Some(Pin::new(io)),
            Far::Dialling(_) | Far::Gone => None,
        }
    }

    fn try_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.drive(cx);
        match &self.fate {
            Fate::Cut(kind, text) => return Poll::Ready(Err(io::Error::new(*kind, text.clone()))),
            Fate::Lost(_) => return Poll::Pending,
            Fate::Well => {}
        }
        let (before, left) = (buffer.filled().len(), self.from_node.left(&self.rule));
        if self.from_node.end.is_none()
            && let Some(io) = self.open(Direction::FromNode)
        {
            if buffer.remaining() <= left {
                ready!(io.poll_read(cx, buffer))?;
            } else {
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left));
                ready!(io.poll_read(cx, &mut part))?;
                let read = part.filled().len();
                buffer.advance(read);
            }
        } else {
            ready!(self.read_late(cx, buffer, left))?;
        }
        self.from_node.pass(buffer.filled().len() - before);
        if self.from_node.left(&self.rule) == 0 {
            self.cut();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what has arrived from the node, after it was on its way for a while.
    fn read_late(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        left: usize,
    ) -> Poll<io::Result<()>> {
        if self.holds(Direction::FromNode) {
            return Poll::Pending;
        }
        let Far::Open(io) = &mut self.far else { return Poll::Pending };
        let way = &mut self.from_node;
        let mut space = vec![0; PIECE];
        while way.end.is_none() && way.queue.bytes() < IN_FLIGHT {
            let mut piece = ReadBuf::new(&mut space);
            match Pin::new(&mut *io).poll_read(cx, &mut piece) {
                Poll::Pending => break,
                Poll::Ready(result) => {
                    let due = way.due(&self.shared, &self.rule);
                    way.queue.push(piece.filled(), due);
                    if piece.filled().is_empty() {
                        way.end = Some((due, result));
                    }
                }
            }
        }
        loop {
            let now = Instant::now();
            let due = if let Some(bytes) = way.queue.front(now) {
                let count = bytes.len().min(buffer.remaining()).min(left);
                buffer.put_slice(bytes.get(..count).unwrap_or_default());
                way.queue.advance(count);
                return Poll::Ready(Ok(()));
            } else if let Some(due) = way.queue.due() {
                due
            } else {
                match &mut way.end {
                    None => return Poll::Pending,
                    Some((due, result)) if *due <= now => {
                        return Poll::Ready(std::mem::replace(result, Ok(())));
                    }
                    Some((due, _)) => *due,
                }
            };
            ready!(way.poll_until(cx, due));
        }
    }

    fn try_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.drive(cx);
        match &mut self.fate {
            Fate::Cut(kind, text) => return Poll::Ready(Err(io::Error::new(*kind, text.clone()))),
            Fate::Lost(taken) => {
                let count = bytes.len().min(HELD - *taken);
                *taken += count;
                return if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) };
            }
            Fate::Well => {}
        }
        let left = self.to_node.left(&self.rule);
        if let Some(io) = self.open(Direction::ToNode) {
            let count = ready!(match bytes.get(..left) {
                Some(bytes) => io.poll_write(cx, bytes),
                None if left == usize::MAX && 1 < all.len() => io.poll_write_vectored(cx, all),
                None => io.poll_write(cx, bytes),
            })?;
            self.to_node.pass(count);
            if self.to_node.left(&self.rule) == 0 {
                self.cut();
            }
            return Poll::Ready(Ok(count));
        }
        let room = if self.rule.delay.is_some() { IN_FLIGHT } else { HELD };
        let count = bytes.len().min(room.saturating_sub(self.to_node.queue.bytes()));
        if count == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        let due = self.to_node.due(&self.shared, &self.rule);
        self.to_node.queue.push(bytes.get(..count).unwrap_or_default(), due);
        // Its timer has to be set, or it can go at once.
        self.drive(cx);
        Poll::Ready(Ok(count))
    }

    fn poll_write_any(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            self.look();
            let result = self.try_write(cx, bytes, all);
            if result.is_pending() {
                self.wakers.writing(cx);
                if self.shared.version() != self.seen {
                    continue;
                }
            }
            return result;
        }
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.look();
            let result = self.try_read(cx, buffer);
            if result.is_pending() {
                self.wakers.reading(cx);
                // Set before the waker was there, it woke nobody.
                if self.shared.version() != self.seen {
                    continue;
                }
            }
            return result;
        }
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_any(cx, bytes, &[])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = all.iter().find(|bytes| !bytes.is_empty());
        self.poll_write_any(cx, first.map_or(&[], |bytes| bytes), all)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.far, Far::Open(io) if io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look();
        self.drive(cx);
        match self.open(Direction::ToNode) {
            Some(io) => io.poll_flush(cx),
            // As with a socket, what is on its way is off our hands.
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look();
        self.drive(cx);
        if let Some(io) = self.open(Direction::ToNode) {
            return io.poll_shutdown(cx);
        }
        if matches!(self.fate, Fate::Well) {
            self.to_node.end = Some((Instant::now(), Ok(())));
            self.drive(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl Io for FaultyStream {
    fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.far {
            Far::Open(io) => io.peer_addr(),
            Far::Dialling(_) | Far::Gone => self.ends.to.parse().ok(),
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        match &self.far {
            Far::Open(io) => io.local_addr(),
            Far::Dialling(_) | Far::Gone => None,
        }
    }
}

impl Drop for FaultyStream {
    fn drop(&mut self) {
        self.shared.closed(&self.ends);
    }
}
