//! Served controllers, seen from the client's end of the socket.

mod corpus;
mod foreign;
mod harness;
mod hostile;
mod kept_states;
mod life;
mod memory;
mod storage;
mod takeover;
mod under_way;
mod wire;
