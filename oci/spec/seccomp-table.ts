/**
 * Where each system call of x86-64, i386, arm64 and arm belongs, written from the kernel's own tables. What is in no
 * row is a call this table does not know yet: it answers ENOSYS, so that a libc that tries it falls back to an older
 * one. A test holds the table against the list of kernel calls.
 */
export interface SyscallFamily {
  readonly reason: string;
  readonly names: readonly string[];
}

/** A family that needs one of these capabilities in the container's bounding set; without any it answers EPERM. */
export interface GatedFamily extends SyscallFamily {
  readonly anyOf: readonly string[];
}

function family(reason: string, names: string): SyscallFamily {
  return { reason, names: names.split(/\s+/) };
}

function gated(anyOf: readonly string[], reason: string, names: string): GatedFamily {
  return { anyOf, ...family(reason, names) };
}

/** What every program may do: the kernel's own permission checks are enough. */
export const allowedFamilies: readonly SyscallFamily[] = [
  family(
    "processes and threads; clone is apart, its namespace flags are looked at",
    `fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp setpgid
     getsid setsid set_tid_address set_robust_list get_robust_list rseq membarrier restart_syscall prctl arch_prctl
     set_thread_area get_thread_area set_tls get_tls modify_ldt cacheflush breakpoint usr26 usr32 pidfd_open
     pidfd_send_signal process_mrelease uretprobe uprobe seccomp map_shadow_stack`,
  ),
  family(
    "scheduling and limits of oneself; raising them is checked against CAP_SYS_NICE and CAP_SYS_RESOURCE",
    `sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
     sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
     sched_rr_get_interval_time64 getpriority setpriority nice ioprio_get ioprio_set getrlimit ugetrlimit setrlimit
     prlimit64 getrusage times getcpu`,
  ),
  family("waiting on memory words", "futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue"),
  family(
    "memory of one's own; locking is bounded by RLIMIT_MEMLOCK",
    `brk mmap mmap2 munmap mprotect mremap madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal
     remap_file_pages pkey_alloc pkey_free pkey_mprotect memfd_create memfd_secret cachestat`,
  ),
  family(
    "files by path",
    `access faccessat faccessat2 chdir chmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchownat creat open
     openat openat2 close close_range getcwd link linkat symlink symlinkat readlink readlinkat mkdir mkdirat mknod
     mknodat rename renameat renameat2 rmdir unlink unlinkat stat stat64 lstat lstat64 newfstatat fstatat64 fstatat
     statx statfs statfs64 truncate truncate64 utime utimes utimensat utimensat_time64 futimesat umask readdir
     oldstat oldlstat setxattr setxattrat lsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
     removexattr removexattrat lremovexattr file_getattr file_setattr name_to_handle_at statmount listmount`,
  ),
  family(
    "files by descriptor",
    `read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl
     fcntl64 ioctl flock fstat fstat64 oldfstat fstatfs fstatfs64 fsync fdatasync sync syncfs sync_file_range
     sync_file_range2 arm_sync_file_range ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 arm_fadvise64_64
     readahead fchdir fchmod fchown fchown32 getdents getdents64 fgetxattr fsetxattr flistxattr fremovexattr
     copy_file_range sendfile sendfile64 splice tee vmsplice pipe pipe2 inotify_init inotify_init1
     inotify_add_watch inotify_rm_watch fanotify_mark`,
  ),
  family(
    "waiting for descriptors, and asynchronous input and output other than io_uring",
    `poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl
     epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
     timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64 io_setup io_submit io_cancel
     io_destroy io_getevents io_pgetevents io_pgetevents_time64`,
  ),
  family(
    "signals",
    `kill tkill tgkill pause signal sigaction sigpending sigprocmask sigreturn sigsuspend sigaltstack rt_sigaction
     rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
     rt_tgsigqueueinfo sgetmask ssetmask`,
  ),
  family(
    "reading clocks, sleeping, timers of one's own; adjtimex reads unless CAP_SYS_TIME is held",
    `clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 nanosleep
     gettimeofday time adjtimex alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime
     timer_gettime64 timer_settime timer_settime64`,
  ),
  family(
    "identity; changing it is checked against CAP_SETUID, CAP_SETGID and CAP_SETPCAP",
    `getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
     getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid
     setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset`,
  ),
  family(
    "System V and POSIX message passing, all in the container's IPC namespace",
    `ipc msgget msgsnd msgrcv msgctl semget semop semctl semtimedop semtimedop_time64 shmget shmat shmctl shmdt mq_open
     mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64`,
  ),
  family(
    "sockets; socket itself is apart, its address family is looked at",
    `socketcall socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt send
     sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown`,
  ),
  family(
    "facts about the machine, randomness, and sandboxes that a program puts around itself",
    `uname olduname oldolduname sysinfo getrandom landlock_create_ruleset landlock_add_rule landlock_restrict_self
     lsm_get_self_attr lsm_set_self_attr lsm_list_modules`,
  ),
  family(
    "debuggers: since Linux 4.8 seccomp looks at a call after its tracer did, so ptrace is no way around the filter",
    "ptrace process_vm_readv process_vm_writev",
  ),
];

/** What a capability that the container was given is worth; the kernel still checks it. */
export const gatedFamilies: readonly GatedFamily[] = [
  gated(
    ["CAP_SYS_ADMIN"],
    "mounts, namespaces, names and quotas: the whole of container building",
    `mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick pivot_root
     setns sethostname setdomainname quotactl quotactl_fd fanotify_init lookup_dcookie listns`,
  ),
  gated(["CAP_SYS_ADMIN", "CAP_BPF"], "programs in the kernel", "bpf"),
  gated(["CAP_SYS_ADMIN", "CAP_PERFMON"], "counters that see other processes and the kernel", "perf_event_open"),
  gated(["CAP_SYS_ADMIN", "CAP_SYSLOG"], "the kernel's log, with its addresses", "syslog"),
  gated(["CAP_DAC_READ_SEARCH"], "opens any inode of a file system, past the mount (Shocker)", "open_by_handle_at"),
  gated(["CAP_SYS_BOOT"], "ends the PID namespace, or the machine", "reboot"),
  gated(["CAP_SYS_CHROOT"], "another root", "chroot"),
  gated(["CAP_SYS_MODULE"], "code in the kernel", "init_module finit_module delete_module"),
  gated(["CAP_SYS_NICE"], "placing memory on nodes", "mbind get_mempolicy set_mempolicy set_mempolicy_home_node"),
  gated(["CAP_SYS_NICE"], "moving other processes' memory between nodes", "migrate_pages move_pages"),
  gated(["CAP_SYS_PACCT"], "process accounting of the whole host", "acct"),
  gated(["CAP_SYS_PTRACE"], "looking into processes without being their tracer", "kcmp pidfd_getfd process_madvise"),
  gated(["CAP_SYS_RAWIO"], "ports of the machine", "iopl ioperm"),
  gated(
    ["CAP_SYS_TIME"],
    "the host's clock",
    "settimeofday stime clock_settime clock_settime64 clock_adjtime clock_adjtime64",
  ),
  gated(["CAP_SYS_TTY_CONFIG"], "hanging up terminals", "vhangup"),
];

/** What no capability allows: EPERM for all but a privileged or unconfined container. */
export const deniedFamilies: readonly SyscallFamily[] = [
  family("keyrings are not namespaced", "add_key keyctl request_key"),
  family(
    "a large and young part of the kernel that passes by this filter",
    "io_uring_setup io_uring_enter io_uring_register",
  ),
  family("stops the kernel at a page fault for as long as one likes: the usual help of exploits", "userfaultfd"),
  family("another kernel", "kexec_load kexec_file_load"),
  family("swap of the host", "swapon swapoff"),
  family("16-bit mode of old processors", "vm86 vm86old"),
  family("old and unused: libraries at fixed addresses, facts about file systems", "uselib ustat sysfs"),
];

/** Numbers without a function behind them; the kernel and we answer ENOSYS. */
export const absentFamilies: readonly SyscallFamily[] = [
  family(
    "never built, or taken out of the kernel",
    `_sysctl afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle lock mpx nfsservctl prof
     profil putpmsg query_module security stty tuxcall ulimit vserver`,
  ),
];

/** Looked at by argument, in `defaultSeccompProfile`. */
export const inspectedFamilies: readonly SyscallFamily[] = [
  family("flags that make namespaces need CAP_SYS_ADMIN", "clone unshare"),
  family("its flags lie in memory, where a filter cannot look: ENOSYS makes libc use clone", "clone3"),
  family("AF_VSOCK reaches the hypervisor, past every network namespace", "socket"),
  family("only the execution domains of ordinary Linux programs", "personality"),
];
