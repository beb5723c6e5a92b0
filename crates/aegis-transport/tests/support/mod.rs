mod body;
mod client;
mod raw;
mod server;

pub(crate) use body::{chunks, collect, empty, full};
pub(crate) use client::{Client, assert_connected, eventually, request, slot};
pub(crate) use raw::{Kind, Raw, STATUS_200, field};
pub(crate) use server::{Http2, Server};
