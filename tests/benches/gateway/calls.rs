//! The CALLs that stations send: frames made once, and stamped anew for each event.
//!
//! A stamp says when its event was sent and which one it is, so that a receiver can tell how
//! long it travelled, and that it came once.

use super::frames::frame;

/// Nanoseconds in twenty digits, a point, and the event's number in ten: still a decimal.
const STAMP: &str = "00000000000000000000.0000000000";
const NANOSECONDS: usize = 20;
const ID: &str = "##########";

/// A digit that is another in each event: a journal that packs what repeats must not find more of
/// it than there is in real readings.
const READING: u8 = b'%';

/// How a stamp begins in a body: these zeros are the nanoseconds' own for eleven days.
const MARK: &[u8] = b"\"00000";

/// What a station sends. The payload of `MeterValues` has 454 bytes.
pub(crate) const METER_VALUES: (&str, &str) = (
    "MeterValues",
    r#"{"connectorId":1,"transactionId":1%%%%%%,"meterValue":[{"timestamp":"2026-04-14T12:34:56Z","sampledValue":[{"value":"@","context":"Sample.Periodic","measurand":"Energy.Active.Import.Register","location":"Outlet","unit":"Wh"},{"value":"%.%","context":"Sample.Periodic","measurand":"Power.Active.Import","unit":"kW"},{"value":"%%.%%","context":"Sample.Periodic","measurand":"Current.Import","location":"Outlet","unit":"A"}]}]}"#,
);
pub(crate) const STATUS: (&str, &str) = (
    "StatusNotification",
    r#"{"connectorId":1,"errorCode":"NoError","status":"Charging","info":"@"}"#,
);
pub(crate) const HEARTBEAT: (&str, &str) = ("Heartbeat", "{}");

/// One kind of CALL, ready to be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    frame: Vec<u8>,
    id_at: usize,
    /// None where the action has no field that could carry one.
    stamp_at: Option<usize>,
    readings_at: Vec<usize>,
}

impl Call {
    pub(crate) fn new((action, payload): (&str, &str)) -> Self {
        let payload = payload.replace('@', STAMP);
        let frame = frame(&format!(r#"[2,"{ID}","{action}",{payload}]"#));
        let find = |text: &str| {
            frame
                .windows(text.len())
                .position(|at| at == text.as_bytes())
        };
        let is_reading = |at: &usize| frame[*at] == READING;
        Self {
            readings_at: (0..frame.len()).filter(is_reading).collect(),
            id_at: find(ID).expect("every CALL has an id"),
            stamp_at: find(STAMP),
            frame,
        }
    }

    /// The frame of this event, sent at this moment.
    pub(crate) fn stamped(&mut self, number: u64, sent_ns: u64) -> &[u8] {
        digits(&mut self.frame[self.id_at..self.id_at + ID.len()], number);
        if let Some(at) = self.stamp_at {
            let stamp = &mut self.frame[at..at + STAMP.len()];
            digits(&mut stamp[..NANOSECONDS], sent_ns);
            digits(&mut stamp[NANOSECONDS + 1..], number);
        }
        // Neighbours differ in every digit: the multiplier is that of Knuth's hash.
        let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for at in &self.readings_at {
            noise = noise.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            digits(&mut self.frame[*at..=*at], noise >> 40);
        }
        &self.frame
    }
}

/// The number of the event in a body, and the moment at which it was sent.
pub(crate) fn stamp_in(body: &[u8]) -> Option<(u64, u64)> {
    let at = body.windows(MARK.len()).position(|at| at == MARK)? + 1;
    let stamp = body.get(at..at + STAMP.len())?;
    Some((
        number_of(&stamp[NANOSECONDS + 1..])?,
        number_of(&stamp[..NANOSECONDS])?,
    ))
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn number_of(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
