use super::{Counted, Reading};
use imager_units::ByteLen;

/// The disk and the partition that others use, as the kernel counts: what goes to the partition counts for both.
#[derive(Default)]
struct Kernel {
    disk: u64,
    others: u64,
}

impl Kernel {
    fn others_write(&mut self, bytes: u64) {
        self.disk += bytes;
        self.others += bytes;
    }

    /// Reads the three counts, while the others write so much after the first and after the second.
    fn read(&mut self, between: [u64; 2]) -> Reading {
        let disk_first = ByteLen::new(self.disk);
        self.others_write(between[0]);
        let others = ByteLen::new(self.others);
        self.others_write(between[1]);
        Reading { disk_first, others, disk_last: ByteLen::new(self.disk) }
    }
}

#[test]
fn whatever_others_write_meanwhile_the_true_count_is_within_the_bounds() {
    let amounts = [0, 512, 4096];
    for n in 0..amounts.len().pow(6) {
        let mut rest = n;
        let [a, b, c, d, others, ours] = std::array::from_fn(|_| {
            let amount = amounts[rest % amounts.len()];
            rest /= amounts.len();
            amount
        });
        let mut kernel = Kernel { disk: 1 << 20, others: 1 << 10 };
        let before = kernel.read([a, b]);
        kernel.disk += ours;
        kernel.others_write(others);
        let counted = kernel.read([c, d]).since(before);
        assert!(counted.agrees(ByteLen::new(ours)), "{counted} but {ours} ({a} {b} {c} {d} {others})");
        if [a, b, c, d] == [0; 4] {
            assert_eq!(counted.to_string(), ours.to_string(), "exact when nothing fell between");
            assert!(!counted.agrees(ByteLen::new(ours + 512)));
        }
    }
}

#[test]
fn a_write_of_somebody_else_to_the_rest_of_the_disk_is_seen() {
    let mut kernel = Kernel::default();
    let before = kernel.read([0, 0]);
    kernel.others_write(1 << 20);
    kernel.disk += 8192;
    let counted = kernel.read([0, 0]).since(before);
    assert!(counted.agrees(ByteLen::new(8192)) && !counted.agrees(ByteLen::new(4096)));
    let bounds = Counted { least: ByteLen::new(512), most: ByteLen::new(1024) };
    assert_eq!(bounds.to_string(), "512 to 1024");
}
