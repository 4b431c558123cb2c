/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What we need of the kernel's own types, and nothing else. Every struct is relocated by
 * CO-RE against the running kernel's BTF, so only names matter here, not offsets; the
 * exception is `prog_load_attr`, which is user ABI and therefore fixed.
 */
#pragma once

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
	BPF_MAP_TYPE_STRUCT_OPS = 26,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_INODE_STORAGE = 28,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1 };
enum {
	BPF_MAP_LOOKUP_ELEM = 1,
	BPF_MAP_UPDATE_ELEM = 2,
	BPF_MAP_DELETE_ELEM = 3,
	BPF_MAP_GET_NEXT_KEY = 4,
	BPF_PROG_LOAD = 5,
	BPF_PROG_ATTACH = 8,
	BPF_PROG_DETACH = 9,
	BPF_PROG_TEST_RUN = 10,
	BPF_RAW_TRACEPOINT_OPEN = 17,
	BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21,
	BPF_MAP_FREEZE = 22,
	BPF_MAP_LOOKUP_BATCH = 24,
	BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25,
	BPF_MAP_UPDATE_BATCH = 26,
	BPF_MAP_DELETE_BATCH = 27,
	BPF_LINK_CREATE = 28,
	BPF_LINK_UPDATE = 29,
	BPF_LINK_GET_FD_BY_ID = 30,
};
enum {
	BPF_PROG_TYPE_SCHED_CLS = 3,
	BPF_PROG_TYPE_SCHED_ACT = 4,
	BPF_PROG_TYPE_XDP = 6,
	BPF_PROG_TYPE_LWT_IN = 10,
	BPF_PROG_TYPE_LWT_XMIT = 12,
	BPF_PROG_TYPE_LWT_SEG6LOCAL = 19,
	BPF_PROG_TYPE_TRACING = 26,
	BPF_PROG_TYPE_STRUCT_OPS = 27,
	BPF_PROG_TYPE_RAW_TRACEPOINT = 17,
	BPF_PROG_TYPE_EXT = 28,
	BPF_PROG_TYPE_SYSCALL = 31,
};
/* enum bpf_sig_verdict */
enum { BPF_SIG_VERIFIED = 1 };
/* enum bpf_attach_type, bit by number: what is attached to a control group. 0 to 3 are packets,
 * sockets and socket operations, 6 devices, 8 to 15 addresses, 18 to 22 sysctl, addresses and socket
 * options, 29 to 34 addresses and sockets, 43 security modules, 49 to 53 addresses. */
#define CGROUP_ATTACH_TYPES                                                                        \
	(0xfull | 1ull << 6 | 0xffull << 8 | 0x1full << 18 | 0xfull << 29 | 1ull << 34 | 1ull << 43 | \
	 0x1full << 49)
enum {
	BPF_XDP = 37,
	BPF_TCX_INGRESS = 46,
	BPF_TCX_EGRESS = 47,
	BPF_NETKIT_PRIMARY = 54,
	BPF_NETKIT_PEER = 55,
};
enum {
	BPF_F_SLEEPABLE = 1 << 4,
	BPF_F_XDP_HAS_FRAGS = 1 << 5,
};

#define EPERM 1
#define EBADF 9
#define EINVAL 22
#define BPF_PERF_EVENT 41
#define BPF_TRACE_KPROBE_MULTI 42
#define BPF_STRUCT_OPS 44
#define BPF_TRACE_UPROBE_MULTI 48
#define BPF_TRACE_KPROBE_SESSION 56
#define BPF_TRACE_FENTRY_MULTI 59
#define BPF_TRACE_FSESSION_MULTI 61
#define PERF_EVENT_IOC_SET_BPF 0x40042408
#define TUNSETSTEERINGEBPF 0x800454e0
#define TUNSETFILTEREBPF 0x800454e1
#define SIOCKCMATTACH 0x89e0
#define AF_KCM 41
#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* union bpf_attr as BPF_PROG_LOAD uses it; offsets are user ABI. */
struct prog_load_attr {
	u32 prog_type;
	u32 insn_cnt;
	u64 insns;
	u64 license;
	u32 log_level;
	u32 log_size;
	u64 log_buf;
	u32 kern_version;
	u32 prog_flags;
	char prog_name[16];
	u32 prog_ifindex;
	u32 expected_attach_type;
	u32 prog_btf_fd;
	u32 func_info_rec_size;
	u64 func_info;
	u32 func_info_cnt;
	u32 line_info_rec_size;
	u64 line_info;
	u32 line_info_cnt;
	u32 attach_btf_id;
	u32 attach_prog_fd;
	u32 core_relo_cnt;
	u64 fd_array;
};

/* union bpf_attr as the attaching commands use it. */
union attach_attr {
	struct {
		u32 prog_fd;
		u32 target_fd;
		u32 attach_type;
		u32 flags;
		union {
			u32 target_btf_id;
			struct {
				u64 path, offsets, ref_ctr_offsets, cookies;
				u32 count, flags, pid;
			} uprobe_multi;
			struct {
				u32 flags, count;
				u64 names, addresses;
			} kprobe_multi;
			struct {
				u64 ids, cookies;
				u32 count;
				u32 later; /* what no kernel to 7.3 reads, */
				u64 much_later; /* and later ones may */
			} tracing_multi;
		};
	} link_create;
	struct { u32 link_fd; u32 new_prog_fd; } link_update;
	struct { u32 target_fd; u32 attach_bpf_fd; u32 attach_type; u32 attach_flags; u32 replace_bpf_fd; } prog_attach;
	struct { u64 name; u32 prog_fd; } raw_tracepoint;
	struct { u32 prog_fd; u32 results[3]; u64 data[2]; u32 more[4]; u64 contexts[2]; u32 flags; } test;
	struct { u32 link_id; } get_id;
	struct { u32 map_fd; u64 key, value, flags; } map_update;
	struct { u64 begin, end, keys, values; u32 count, map_fd; } map_batch;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Fields that came later: 6.14. */
union bpf_attr___later {
	u32 fd_array_cnt;
};

/* 7.2: what the kernel made of a signature, before the hook. */
struct bpf_prog_aux___signed {
	struct {
		s32 keyring_serial;
		u8 keyring_type;
		u8 verdict;
	} sig;
};

/* 6.18: the digest of the only program that may use the map. */
struct bpf_map___exclusive {
	char *excl_prog_sha;
};

/* 6.18. */
struct bpf_prog___digest {
	u8 digest[32];
};

enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC };
enum bpf_attach_type { BPF_CGROUP_INET_INGRESS, BPF_CGROUP_SYSCTL = 18, BPF_LSM_CGROUP = 43 };
enum bpf_map_type { BPF_MAP_TYPE_UNSPEC };
enum bpf_cmd { BPF_MAP_CREATE };
/* Only the names count: the running kernel's BTF says the numbers, and whether it has them. */
enum lockdown_reason {
	LOCKDOWN_MODULE_SIGNATURE = 1,
	LOCKDOWN_DEV_MEM,
	LOCKDOWN_KEXEC,
	LOCKDOWN_HIBERNATION,
	LOCKDOWN_PCI_ACCESS,
	LOCKDOWN_IOPORT,
	LOCKDOWN_MSR,
	LOCKDOWN_ACPI_TABLES,
	LOCKDOWN_DEVICE_TREE,
	LOCKDOWN_PCMCIA_CIS,
	LOCKDOWN_TIOCSSERIAL,
	LOCKDOWN_MODULE_PARAMETERS,
	LOCKDOWN_MMIOTRACE,
	LOCKDOWN_XMON_WR,
	LOCKDOWN_DBG_WRITE_KERNEL,
	LOCKDOWN_KCORE,
	LOCKDOWN_DBG_READ_KERNEL,
	LOCKDOWN_XMON_RW,
};
enum kernel_load_data_id { LOADING_KEXEC_IMAGE = 1, LOADING_KEXEC_INITRAMFS };
enum kernel_read_file_id { READING_KEXEC_IMAGE = 1, READING_KEXEC_INITRAMFS };

struct bpf_insn {
	u8 code;
};

struct btf_type {
	u32 name_off;
	u32 info;
};
struct btf {
	struct btf_type **types;
	const char *strings;
	u32 nr_types;
	u32 id;
	struct btf *base_btf;
	bool kernel_btf;
};

typedef struct { s64 counter; } atomic64_t;
struct bpf_map {
	char name[16];
	enum bpf_map_type map_type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 map_flags;
	u32 id;
	bool frozen;
	struct bpf_map *inner_map_meta;
	atomic64_t refcnt;
	atomic64_t usercnt;
};

struct bpf_array {
	struct bpf_map map;
	char value[0];
};

struct bpf_prog;

/* Registering structs of functions. */
struct bpf_struct_ops_desc {
	struct btf_type *type;
};
enum bpf_link_type { BPF_LINK_TYPE_CGROUP = 3, BPF_LINK_TYPE_XDP = 6, BPF_LINK_TYPE_TCX = 11, BPF_LINK_TYPE_NETKIT = 13 };
struct bpf_link {
	struct bpf_prog *prog;
	enum bpf_link_type type;
};
struct bpf_cgroup_link {
	struct cgroup *cgroup;
};
struct bpf_xdp_link {
	struct net_device *dev;
};
struct tcx_link {
	struct net_device *dev;
};
struct netkit_link {
	struct net_device *dev;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct bpf_struct_ops_map {
	struct bpf_struct_ops_desc *st_ops_desc;
	struct bpf_link **links;
};
struct bpf_struct_ops_value {
	char data[0];
};
/* To 6.8. */
struct bpf_struct_ops {
	struct btf_type *type;
};
struct bpf_struct_ops_map___old {
	struct bpf_struct_ops *st_ops;
};

/* Registers of a system call, on x86. */
struct pt_regs___kernel {
	unsigned long r8;
	unsigned long r10;
	unsigned long si;
	unsigned long dx;
	unsigned long orig_ax;
};

struct bpf_prog_ops;

/* The modules whose functions a program calls, as the verifier found them in the loader's table. */
struct bpf_kfunc_btf {
	struct btf *btf;
	u16 offset;
};
struct bpf_kfunc_btf_tab {
	struct bpf_kfunc_btf descs[1];
	u32 nr_descs;
};


struct bpf_prog_aux {
	u32 used_map_cnt;
	u32 id;
	u32 attach_btf_id;
	struct btf *btf;
	struct btf *attach_btf;
	struct bpf_kfunc_btf_tab *kfunc_btf_tab;
	struct bpf_prog *dst_prog;
	bool offload_requested;
	bool sleepable;
	bool xdp_has_frags;
	bool exception_cb;
	void *bpf_exception_cb;
	bool kprobe_write_ctx;
	const struct bpf_prog_ops *ops;
	struct bpf_map **used_maps;
	struct bpf_prog *prog;
	u64 load_time;
	char name[16];
};

struct bpf_prog {
	u16 gpl_compatible : 1;
	enum bpf_prog_type type;
	enum bpf_attach_type expected_attach_type;
	u32 len;
	u8 tag[8];
	struct bpf_prog_aux *aux;
	void *bpf_func;
	struct bpf_insn insnsi[0];
};

typedef struct { int counter; } atomic_t;

struct file;
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	atomic_t count;
	struct fdtable *fdt;
};

struct gendisk {
	u64 diskseq;
};
struct block_device {
	u32 bd_dev;
	struct gendisk *bd_disk;
};
enum lsm_integrity_type { LSM_INT_DMVERITY_SIG_VALID, LSM_INT_DMVERITY_ROOTHASH };

struct net;
struct mnt_namespace;
struct time_namespace;
struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct time_namespace *time_ns;
	struct net *net_ns;
};

struct pid {
	unsigned int level;
};
struct user_namespace {
	int level;
};
struct cred {
	struct { u64 bits; } cap_permitted; /* another struct of the same size from 6.3 on */
	struct user_namespace *user_ns;
};

struct seccomp {
	int mode;
};

struct mm_struct;
struct thread_info {
	u32 status;
};
struct list_head {
	struct list_head *next;
};
struct signal_struct {
	struct list_head thread_head;
};
struct task_struct {
	struct thread_info thread_info;
	int exit_state;
	unsigned int ptrace;
	struct signal_struct *signal;
	struct list_head thread_node;
	int pid;
	int tgid;
	struct pid *thread_pid;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	u64 start_boottime;
	const struct cred *cred;
	struct mm_struct *mm;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct seccomp seccomp;
};

struct super_block {
	u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	u32 i_rdev;
	unsigned long i_ino;
	struct super_block *i_sb;
	void *i_private;
};

/* A folder of cgroupfs, behind `i_private`. */
struct kernfs_node {
	struct kernfs_node *__parent;
	const char *name;
};
/* To 6.14. */
struct kernfs_node___old {
	struct kernfs_node *parent;
};

struct qstr {
	const unsigned char *name;
};
struct dentry {
	struct inode *d_inode;
	struct qstr d_name;
};

struct vfsmount;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	struct inode *f_inode;
	struct path f_path;
	void *private_data;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};
struct ns_common {
	unsigned int inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct time_namespace {
	struct ns_common ns;
};
struct mm_struct {
	struct task_struct *owner;
	struct file *exe_file;
	unsigned long flags;
};
/* Newer kernels have them as a bitmap. */
struct mm_flags___bitmap {
	unsigned long first[1];
};
struct mm_struct___bitmap {
	struct mm_flags___bitmap flags;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_mounts;
	struct list_head mnt_child;
	struct list_head mnt_share;
	struct mount *mnt_master;
	int mnt_group_id;
};

struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};
struct net {
	struct hlist_head *dev_index_head;
};
struct net_device {
	int ifindex;
	char name[16];
	struct hlist_node index_hlist;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	u16 skc_family;
	possible_net_t skc_net;
};
struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
};
struct socket {
	struct sock *sk;
};
struct sk_buff {
	unsigned char *data;
	unsigned int len;
};

struct tracepoint {
	const char *name;
};
struct trace_event_class {
	const char *system;
};
struct trace_event_call {
	struct trace_event_class *class;
	union {
		const char *name;
		struct tracepoint *tp;
	};
	int flags;
};
struct perf_event {
	struct trace_event_call *tp_event;
};
struct trace_probe_event {
	struct trace_event_call call;
	struct list_head probes;
};
struct trace_probe {
	struct list_head list;
};
struct dyn_event {
	struct list_head list;
};
struct kprobe {
	unsigned int offset;
};
struct kretprobe {
	struct kprobe kp;
};
struct trace_kprobe {
	struct dyn_event devent;
	struct kretprobe rp;
	const char *symbol;
	struct trace_probe tp;
};

struct ctl_table {
	const char *procname;
};
struct proc_inode {
	struct ctl_table *sysctl_entry;
	struct inode vfs_inode;
};

struct linux_binprm {
	struct file *file;
	int unsafe;
};

#pragma clang attribute pop

/* struct bpf_sysctl of include/uapi/linux/bpf.h, which the verifier knows by its offsets. */
struct sysctl_call {
	u32 write;
	u32 file_pos;
};
#define BPF_F_SYSCTL_BASE_NAME 1

union bpf_attr;
struct bpf_token;
struct cred;
struct vm_area_struct;
struct user_namespace;
