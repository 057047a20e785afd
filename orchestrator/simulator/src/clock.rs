//! The device's clocks: a monotonic one that starts at each boot, and a wall clock that may say anything.

use std::rc::Rc;

use device::ports::Clock as Port;
use model::{Instant, WallTime};

use crate::machine::Machine;

/// Both clocks of a machine.
#[derive(Debug, Clone)]
pub struct Clock(pub Rc<Machine>);

impl Port for Clock {
    fn now(&self) -> Instant {
        self.0.clock()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.0.now().saturating_add_signed(self.0.wall_offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_starts_the_monotonic_clock_over_and_the_wall_clock_may_jump() {
        let machine = Machine::new(false);
        let clock = Clock(Rc::clone(&machine));
        machine.advance_to(500);
        assert_eq!(clock.now(), Instant(500));
        machine.start_over();
        assert_eq!(clock.now(), Instant(0));
        machine.set_wall_offset(-400);
        assert_eq!(clock.wall(), WallTime(100));
        machine.set_wall_offset(i64::MIN);
        assert_eq!(clock.wall(), WallTime(0), "not before 1970");
    }
}
