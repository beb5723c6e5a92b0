use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aegis_core::ServiceInfo;

use super::{Balance, Balancing, LeastLoaded, Weighted};
use crate::apart::Apart;

/// Which provider a call goes to: a rule for [`PoolBuilder::balance`](crate::PoolBuilder::balance).
///
/// Whatever it says, a call passes by providers that are not connected, full, silent, ejected, or have had it already, for
/// as long as there is another.
///
/// ```
/// use aegis_client::{Balancer, ServicePool};
/// use aegis_core::ServiceInfo;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tls = aegis_testing::TestCa::new().options("vicky-1", "gateway");
/// let pool = ServicePool::builder()
///     .tls(tls)
///     .seeds(["10.0.0.7:9443"])
///     .balance(Balancer::least_loaded())
///     .balance_service(ServiceInfo::from_static("shards", "v1"), Balancer::weighted())
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Balancer(Rule);

#[derive(Clone)]
enum Rule {
    RoundRobin,
    LeastLoaded,
    Weighted,
    Custom(Arc<Make>),
}

type Make = dyn Fn(&ServiceInfo) -> Box<dyn Balance> + Send + Sync;

impl Balancer {
    /// Turns: over providers that do not change each gets equally many calls, to within one, from all threads together.
    /// From 128 providers on each thread takes turns by itself: to within one for each thread that calls, and eight at most.
    ///
    /// The default. For providers that are alike and calls that take about as long; one slow provider holds up all
    /// callers that wait for each answer.
    pub fn round_robin() -> Self {
        Self(Rule::RoundRobin)
    }

    /// The better of two at random, by latency times requests under way (P2C over Peak-EWMA, as Finagle and linkerd have it).
    ///
    /// A slow provider gets few calls, one that fails fast counts as slow. The latency is measured by this pool and fades
    /// over 10 s; a provider without any measurement is compared by its requests under way alone; one that comes late
    /// starts slowly, within 10 s.
    pub fn least_loaded() -> Self {
        Self(Rule::LeastLoaded)
    }

    /// Shares as the providers advertise them (`weight` of a node's builder): over providers that do not change exact, to within one
    /// for each round.
    ///
    /// For providers of different size. One that comes late starts slowly, within 10 s.
    pub fn weighted() -> Self {
        Self(Rule::Weighted)
    }

    /// A rule of your own; `make` is called once for each service, and what it returns is kept with it.
    ///
    /// [`Balance`] has an example.
    pub fn custom<B: Balance>(make: impl Fn(&ServiceInfo) -> B + Send + Sync + 'static) -> Self {
        Self(Rule::Custom(Arc::new(move |info| Box::new(make(info)))))
    }

    fn start(&self, info: &ServiceInfo) -> Balancing {
        match &self.0 {
            Rule::RoundRobin => Balancing::RoundRobin(Apart::default()),
            Rule::LeastLoaded => Balancing::Other(Box::new(LeastLoaded)),
            Rule::Weighted => Balancing::Other(Box::<Weighted>::default()),
            Rule::Custom(make) => Balancing::Other(make(info)),
        }
    }

    fn name(&self) -> &'static str {
        match self.0 {
            Rule::RoundRobin => "round-robin",
            Rule::LeastLoaded => "least-loaded",
            Rule::Weighted => "weighted",
            Rule::Custom(_) => "custom",
        }
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self::round_robin()
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Balancer({})", self.name())
    }
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Balancer {
    type Err = UnknownBalancer;

    /// Of `round-robin`, `least-loaded` and `weighted`.
    fn from_str(text: &str) -> Result<Self, UnknownBalancer> {
        let all = [Self::round_robin(), Self::least_loaded(), Self::weighted()];
        let known = all.into_iter().find(|it| it.name() == text);
        known.ok_or_else(|| UnknownBalancer { name: text.to_owned() })
    }
}

/// A text that names no [`Balancer`]. Whoever wrote it has to correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is none of round-robin, least-loaded and weighted")]
pub struct UnknownBalancer {
    name: String,
}

/// The rules of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balancers {
    pub(crate) default: Balancer,
    pub(crate) services: HashMap<ServiceInfo, Balancer>,
}

impl Balancers {
    pub(crate) fn start(&self, info: &ServiceInfo) -> Balancing {
        self.services.get(info).unwrap_or(&self.default).start(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_is_named_as_it_is_written() {
        for name in ["round-robin", "least-loaded", "weighted"] {
            assert_eq!(name.parse::<Balancer>().unwrap().to_string(), name);
        }
        let error = "fastest".parse::<Balancer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""fastest" is none of round-robin, least-loaded and weighted"#
        );
    }
}
