use std::fmt;

use aegis_core::{Address, Chain, InvalidName, NodeId};

/// Why [`PoolBuilder::build`](crate::PoolBuilder::build) made no pool.
///
/// Whoever wrote the program, or its configuration, has to act.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A node was given more addresses or services than one may have.
    #[error("provider {node} does not fit the directory")]
    Description {
        /// The node.
        node: NodeId,
        /// The limit that it breaks.
        source: aegis_topology::InvalidDescription,
    },
    /// A node id or an address does not follow its grammar.
    #[error("{setting} is not valid")]
    Name {
        /// The builder's method that was given it.
        setting: &'static str,
        /// What is wrong.
        source: InvalidName,
    },
    /// Neither providers nor seeds were given.
    #[error(
        "the pool has nobody to call: name providers with provider, or nodes of a mesh with seeds"
    )]
    NobodyToCall,
    /// A pool's tasks need a runtime. The program has to build it inside one.
    #[error("the pool was built outside a tokio runtime")]
    NoRuntime,
    /// A provider was given without a service.
    #[error("provider {node} has no services")]
    NoServices {
        /// The node.
        node: NodeId,
    },
    /// No source of certificates was named.
    #[error("the pool has no certificate: name its source with tls")]
    NoTlsConfig,
    /// A pool follows either a list or a mesh.
    #[error("the pool has providers and seeds: name one of the two")]
    ProvidersAndSeeds,
    /// Several mistakes at once.
    #[error("{}", Several(.0))]
    Several(Vec<Self>),
    /// The certificates could not be loaded. The operator has to act, as `source` says.
    #[error("cannot use the certificates of this pool")]
    Tls {
        /// What is wrong with them.
        source: aegis_tls::LoadError,
    },
    /// Nobody can dial the address.
    #[error("provider {node} cannot be reached at {address}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// The address in question.
        address: Address,
    },
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

impl BuildError {
    /// All mistakes, one after another.
    pub fn mistakes(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::Several(mistakes) => mistakes.iter(),
            one => std::slice::from_ref(one).iter(),
        }
    }

    pub(crate) fn collect(mut mistakes: Vec<Self>) -> Option<Self> {
        if 1 < mistakes.len() { Some(Self::Several(mistakes)) } else { mistakes.pop() }
    }
}

/// A list of errors, each with its causes.
struct Several<'a>(&'a [BuildError]);

impl fmt::Display for Several<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mistakes", self.0.len())?;
        for mistake in self.0 {
            write!(f, "; {}", Chain::new(mistake))?;
        }
        Ok(())
    }
}
