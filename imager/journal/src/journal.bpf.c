// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Marks what is written to one disk.
 *
 * A write is marked twice: when it is handed to the driver, before it can land, and when the driver is done with it,
 * after it landed and before whoever wrote can know. One mark alone loses: a write that is marked, harvested, read as it
 * was, and then lands, would never be marked again. include/trace/events/block.h has the two events; a sector there
 * counts from the start of the disk whatever partition or filesystem was written.
 *
 * A mark is a bit a block of 64 KiB. So that a range of any length takes at most six steps and no loop, there are three
 * levels: a bit of the second stands for a word (64 bits) of the first, one of the third for a word of the second, which
 * is 256 MiB; a request is shorter than 4 GiB.
 *
 * Signatures and fields as in Linux 6.1 to 6.18; what moves between them is found by the kernel's own type information.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define SECTORS_LOG2 7   /* sectors of 512 bytes in a block */
#define WORD_LOG2 6      /* bits in a word */
#define RANGES 256       /* most ranges in one discard: NVMe */

enum { OP_DISCARD = 3, OP_DRV_OUT = 35, OP_MASK = 0xff };
enum { STS_NOTSUPP = 1, STS_TARGET = 5 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct gendisk { int major; int first_minor; char disk_name[32]; };
struct request_queue { struct gendisk *disk; };
struct bvec_iter { __u64 bi_sector; unsigned int bi_size; };
struct bio { struct bio *bi_next; struct bvec_iter bi_iter; };
struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
};
#pragma clang attribute pop

/* Which disk: set before the program is loaded, never changed after. about.rs has the same. */
struct about {
	__u32 major, minor;
	__u32 level[2];           /* the first words of the second and third level */
	__u32 ends;               /* 1: mark when issued, 2: when completed; 4: see no completion */
	__u32 paths;              /* whether it is an NVMe disk whose requests go to its paths */
	__u32 subsystem, space;   /* then they are called nvme<subsystem>c<any>n<space> */
	__u64 blocks;
	/* For user space: the size, a number that no other disk of this boot has, and which program this is. */
	__u64 bytes, sequence, program;
};
const volatile struct about about = {};

/* What was seen, and what user space notes here because this memory lives as long as the marks. `Word` in tracker.rs. */
struct state {
	__u64 written_sectors, discarded_sectors;             /* completed */
	__u64 passed_through, failed, beyond, overflowed;     /* trouble */
	__u64 epoch, era, noted;                              /* user space's, like the next */
	__u64 written_base, discarded_base, slept;
	__u64 issued_written_sectors, issued_discarded_sectors; /* issued */
	__u64 issued_written_base, issued_discarded_base, drained;
};
struct state state = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} written SEC(".maps"), discarded SEC(".maps");

static __always_inline void set(int discard, __u64 word, __u64 bits)
{
	__u32 key = word;
	__u64 *at = discard ? bpf_map_lookup_elem(&discarded, &key) : bpf_map_lookup_elem(&written, &key);

	if (!at)
		__sync_fetch_and_add(&state.overflowed, 1);
	else if ((*(volatile __u64 *)at & bits) != bits)
		__sync_fetch_and_or(at, bits);
}

/* Marks bits first..=last of a level that starts at word `base`; how many whole words lie between its two ends. */
static __always_inline __u64 ends_of(int discard, __u64 base, __u64 first, __u64 last)
{
	__u64 from = first >> WORD_LOG2, to = last >> WORD_LOG2;
	__u64 head = ~0ULL << (first & 63), tail = ~0ULL >> (63 - (last & 63));

	if (from == to) {
		set(discard, base + from, head & tail);
		return 0;
	}
	set(discard, base + from, head);
	set(discard, base + to, tail);
	return to - from - 1;
}

__attribute__((noinline)) int mark(__u64 sector, __u64 sectors, int discard)
{
	__u64 first = sector >> SECTORS_LOG2, last = (sector + sectors - 1) >> SECTORS_LOG2;

	if (!sectors)
		return 0;
	if (last >= about.blocks) {
		__sync_fetch_and_add(&state.beyond, 1);
		return 0;
	}
	if (!ends_of(discard, 0, first, last))
		return 0;
	first = (first >> WORD_LOG2) + 1, last = (last >> WORD_LOG2) - 1;
	if (!ends_of(discard, about.level[0], first, last))
		return 0;
	first = (first >> WORD_LOG2) + 1, last = (last >> WORD_LOG2) - 1;
	if (ends_of(discard, about.level[1], first, last))
		__sync_fetch_and_add(&state.overflowed, 1);
	return 0;
}

/* nvme<subsystem>c<controller>n<space>: the kernel shows no other tie between a disk and its paths that could be used. */
static __always_inline int is_path(struct gendisk *disk)
{
	char name[32];
	__u32 subsystem = 0, number = 0, at = 0;
	int n;

	if (bpf_probe_read_kernel(name, sizeof(name), disk->disk_name))
		return 0;
	if (name[0] != 'n' || name[1] != 'v' || name[2] != 'm' || name[3] != 'e')
		return 0;
	for (n = 4; n < (int)sizeof(name) && name[n]; n++) {
		char c = name[n];

		if (c >= '0' && c <= '9') {
			number = number * 10 + (c - '0');
		} else if (c == 'c' && at == 0) {
			subsystem = number;
			number = 0, at = 1;
		} else if (c == 'n' && at == 1) {
			number = 0, at = 2;
		} else {
			return 0;
		}
	}
	return at == 2 && subsystem == about.subsystem && number == about.space;
}

static __always_inline int is_ours(struct request *rq)
{
	struct gendisk *disk = rq->q->disk;

	if (!disk)
		return 0;
	if (about.paths)
		return is_path(disk);
	return disk->major == about.major && disk->first_minor == about.minor;
}

static __always_inline void mark_request(struct request *rq, int op)
{
	struct bio *bio = rq->bio;
	int n;

	if (op != OP_DISCARD || !bio) {
		mark(rq->__sector, rq->__data_len >> 9, op == OP_DISCARD);
		return;
	}
	/* Discards far from each other may be one request, whose own sector then says nothing. */
	for (n = 0; n < RANGES && bio; n++, bio = bio->bi_next)
		mark(bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> 9, 1);
	if (bio)
		__sync_fetch_and_add(&state.overflowed, 1);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(issued, struct request *rq)
{
	int op = rq->cmd_flags & OP_MASK;

	if (!(op & 1) || !is_ours(rq))
		return 0;
	if (op == OP_DRV_OUT) {
		__sync_fetch_and_add(&state.passed_through, 1);
		return 0;
	}
	if (about.ends & 1)
		mark_request(rq, op);
	__sync_fetch_and_add(op == OP_DISCARD ? &state.issued_discarded_sectors : &state.issued_written_sectors,
			     rq->__data_len >> 9);
	return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(completed, struct request *rq, int error, unsigned int bytes)
{
	int op = rq->cmd_flags & OP_MASK;

	if (!(op & 1) || op == OP_DRV_OUT || !is_ours(rq) || (about.ends & 4))
		return 0;
	if (about.ends & 2)
		mark_request(rq, op);
	/* What a device does not know how to do it did not do; after anything else a write may land late. */
	error &= 0xff;
	if (error && error != STS_NOTSUPP && error != STS_TARGET)
		__sync_fetch_and_add(&state.failed, 1);
	__sync_fetch_and_add(op == OP_DISCARD ? &state.discarded_sectors : &state.written_sectors, bytes >> 9);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
