//! Durations as people read them.

use std::time::Duration;

/// "0.25 s", "12.3 s", "3 min 04 s".
pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        let seconds = (duration + Duration::from_millis(500)).as_secs();
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let shown = |milliseconds| shown(Duration::from_millis(milliseconds));
        assert_eq!(shown(0), "0.00 s");
        assert_eq!(shown(250), "0.25 s");
        assert_eq!(shown(12_345), "12.3 s");
        assert_eq!(shown(59_949), "59.9 s");
        assert_eq!(shown(59_950), "1 min 00 s");
        assert_eq!(shown(184_400), "3 min 04 s");
    }
}
