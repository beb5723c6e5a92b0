use aegis_core::ServiceInfo;

use crate::balance::{Balancer, Balancers};
use crate::outlier::OutlierDetection;

/// How a pool chooses providers, whether it is a node's or stands alone.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct PoolOptions {
    pub(crate) balancers: Balancers,
    pub(crate) detection: Option<OutlierDetection>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { balancers: Balancers::default(), detection: Some(OutlierDetection::default()) }
    }
}

impl PoolOptions {
    pub fn balance(&mut self, balancer: Balancer) {
        self.balancers.default = balancer;
    }

    pub fn balance_service(&mut self, info: ServiceInfo, balancer: Balancer) {
        self.balancers.services.insert(info, balancer);
    }

    /// `None` is off.
    pub fn outlier_detection(&mut self, detection: Option<OutlierDetection>) {
        self.detection = detection;
    }
}
