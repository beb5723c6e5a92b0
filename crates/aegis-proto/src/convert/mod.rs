//! Conversions between wire messages and the types of aegis-core and aegis-topology.
