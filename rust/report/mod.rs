//! What we say: a recording and its verdict as rows and lines for people. Holds no threshold and decides nothing.

pub mod table;
