/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ways into kernel memory, each of which the policy closes or leaves open. The kernel asks at
 * each of them whether it is locked down, with or without lockdown=, so that nothing here
 * depends on a boot parameter. Reasons are mapped by their names in the running kernel's BTF:
 * their numbers change between kernels.
 */
#pragma once

#define MEM_MAJOR 1
#define MSR_MAJOR 202
#define MINOR_BITS 20
#define S_IFCHR 0020000
#define MAY_WRITE 2

#define IS(what, type, name)                                                                       \
	(bpf_core_enum_value_exists(enum type, name) && (what) == bpf_core_enum_value(enum type, name))
#define LOCKED(name) IS(what, lockdown_reason, name)

static __always_inline u32 switch_of_reason(u32 what)
{
	if (LOCKED(LOCKDOWN_MODULE_SIGNATURE))
		return PROTECT_UNSIGNED_MODULES;
	if (LOCKED(LOCKDOWN_KEXEC))
		return PROTECT_KEXEC;
	if (LOCKED(LOCKDOWN_DEV_MEM) || LOCKED(LOCKDOWN_MMIOTRACE))
		return PROTECT_DEV_MEM;
	if (LOCKED(LOCKDOWN_IOPORT) || LOCKED(LOCKDOWN_TIOCSSERIAL))
		return PROTECT_IO_PORTS;
	if (LOCKED(LOCKDOWN_MSR))
		return PROTECT_MSR;
	if (LOCKED(LOCKDOWN_PCI_ACCESS) || LOCKED(LOCKDOWN_PCMCIA_CIS))
		return PROTECT_PCI;
	if (LOCKED(LOCKDOWN_KCORE))
		return PROTECT_KCORE;
	if (LOCKED(LOCKDOWN_DBG_WRITE_KERNEL) || LOCKED(LOCKDOWN_DBG_READ_KERNEL) ||
	    LOCKED(LOCKDOWN_XMON_WR) || LOCKED(LOCKDOWN_XMON_RW))
		return PROTECT_DEBUGGER;
	if (LOCKED(LOCKDOWN_ACPI_TABLES) || LOCKED(LOCKDOWN_DEVICE_TREE))
		return PROTECT_ACPI_TABLES;
	if (LOCKED(LOCKDOWN_HIBERNATION))
		return PROTECT_HIBERNATION;
	if (LOCKED(LOCKDOWN_MODULE_PARAMETERS))
		return PROTECT_HARDWARE_PARAMETERS;
	return PROTECT_NOTHING;
}

/* A way into kernel memory, by number. Audit only says it. */
static __always_inline u32 refuse_way(u32 way)
{
	struct key key = { .use = USE_SETTINGS };
	struct guard *g = locked_guard();
	void *index = set_in_force();
	struct header *settings;
	bool refused;

	if (way == PROTECT_NOTHING || !g || !index)
		return 0;
	settings = bpf_map_lookup_elem(index, &key);
	if (!settings || settings->mode == MODE_OPEN || !(settings->places >> (way & 31) & 1))
		return 0;
	refused = settings->mode == MODE_ENFORCE;
	emit_way(way, refused);
	return refused ? REASON_KERNEL_MEMORY : 0;
}

/* kexec_load(2) asks here first. */
static __always_inline u32 way_of_data(u32 what)
{
	return IS(what, kernel_load_data_id, LOADING_KEXEC_IMAGE) ||
		       IS(what, kernel_load_data_id, LOADING_KEXEC_INITRAMFS)
		       ? PROTECT_KEXEC
		       : PROTECT_NOTHING;
}

/* kexec_file_load(2), whatever its signature: a signed kernel of yesterday has no gate either. */
static __always_inline u32 way_of_file(u32 what)
{
	return IS(what, kernel_read_file_id, READING_KEXEC_IMAGE) ||
		       IS(what, kernel_read_file_id, READING_KEXEC_INITRAMFS)
		       ? PROTECT_KEXEC
		       : PROTECT_NOTHING;
}

/* What was opened before the gate was armed is used after it. */
static __always_inline u32 refuse_use(struct file *file, int mask)
{
	struct inode *inode = file->f_inode;
	u32 major;

	if (inode->i_sb->s_magic == PROC_SUPER_MAGIC)
		return (mask & MAY_WRITE) ? refuse_sysctl(inode) : 0;
	if ((inode->i_mode & S_IFMT) != S_IFCHR)
		return 0;
	major = inode->i_rdev >> MINOR_BITS;
	if (major == MEM_MAJOR) {
		u32 minor = inode->i_rdev & ((1 << MINOR_BITS) - 1);

		/* /dev/mem, /dev/kmem, /dev/port; not null, zero, full, random */
		if (minor != 1 && minor != 2 && minor != 4)
			return 0;
		return refuse_way(PROTECT_DEV_MEM);
	}
	return 0;
}
