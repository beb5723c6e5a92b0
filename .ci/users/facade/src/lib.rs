//! What the provider and the consumer have in common.

use aegis::ServiceInfo;

tonic::include_proto!("shop.orders.v1");

pub const ORDERS_V1: ServiceInfo = ServiceInfo::from_static("orders", "v1");
