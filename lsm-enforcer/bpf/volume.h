/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Volumes of dm-verity that have files of generators.
 *
 * What is read from one is checked by its table, and a device may be given another table while its
 * files are in use: one with another root hash, or one that lets errors pass. The kernel announces each
 * table before anything is read by it (6.12, kernel commit a6af7bc3d72f), and a device that had one of
 * dm-verity takes no other kind. So tables are counted, and a generator is one only as long as none was
 * added since its files were looked at: pages that were read by another table may stay in memory.
 */
#pragma once

static __always_inline void note_table(struct block_device *bdev)
{
	struct volume fresh = { .disk = BPF_CORE_READ(bdev, bd_disk, diskseq), .tables = 1 };
	u32 device = bdev->bd_dev;
	struct volume *volume = bpf_map_lookup_elem(&volumes, &device);

	if (volume && volume->disk == fresh.disk) {
		__sync_fetch_and_add(&volume->tables, 1);
		return;
	}
	if (bpf_map_update_elem(&volumes, &device, &fresh, BPF_ANY))
		count(COUNT_TABLES_LOST);
}

/* LIMIT_VOLUME if it was given a table after its files were looked at, as far as all were counted. */
static __always_inline u32 volume_limit(struct maker *maker)
{
	u32 device = maker->device, which = COUNT_TABLES_LOST;
	struct volume *volume;
	u64 *lost;

	if (!device)
		return 0;
	lost = bpf_map_lookup_elem(&counters, &which);
	if (!lost || *lost)
		return LIMIT_VOLUME;
	volume = bpf_map_lookup_elem(&volumes, &device);
	if (!volume)
		return maker->tables ? LIMIT_VOLUME : 0;
	return volume->disk != maker->disk || volume->tables != maker->tables ? LIMIT_VOLUME : 0;
}
