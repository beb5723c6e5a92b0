use tokio::net::TcpListener;

use crate::Outcome;
use crate::arguments::Serve;
use crate::load::announce;

/// Accepts connections and says nothing on them, as a process does whose threads all wait for something else.
pub(crate) async fn serve(serve: Serve) -> Outcome<()> {
    let listener = TcpListener::bind(serve.listen).await?;
    announce(listener.local_addr()?);
    let mut open = Vec::new();
    loop {
        open.push(listener.accept().await?.0);
    }
}
