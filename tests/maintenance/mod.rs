//! Maintenance as a whole: over weeks, by one leader of several, and over crashes.

mod folding;
mod leaders;
mod rig;
mod weeks;
