import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { AgentConfig } from '../config.ts'
import { JoinTokenNodeAttestor } from '../plugin/node-attestor/join-token.ts'
import type { NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import { createTpmNodeAttestor } from '../plugin/node-attestor/tpm.ts'
import { UnixWorkloadAttestor } from '../plugin/workload-attestor/unix/unix.ts'
import type { WorkloadAttestor } from '../plugin/workload-attestor/workload-attestor.ts'

/** What plugins are made with. */
export interface CatalogDependencies {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** The node attestor that the configuration names. */
export function openNodeAttestor(
  { node_attestor: settings, trust_domain: trustDomain }: AgentConfig,
  { clock, random, log }: CatalogDependencies,
): NodeAttestor {
  switch (settings.kind) {
    case 'tpm':
      return createTpmNodeAttestor({
        tcti: settings.tcti,
        trustDomain,
        clock,
        random,
        log: log.child({ component: 'tpm' }),
      })
    case 'join_token':
      return new JoinTokenNodeAttestor(
        settings.token === undefined
          ? { tokenFile: settings.token_file ?? '' }
          : { token: settings.token },
      )
  }
}

/** The workload attestors that the configuration names. */
export function openWorkloadAttestors(
  { workload_attestors: { unix } }: AgentConfig,
  dependencies: CatalogDependencies & {
    /** Whether an entry that the agent holds asks for the program of a process. */
    readonly usesProgram: () => boolean
  },
): readonly WorkloadAttestor[] {
  const { clock, log, usesProgram } = dependencies
  return [
    new UnixWorkloadAttestor({
      discoverWorkloadPath: unix.discover_workload_path,
      workloadSizeLimit: sizeLimit(unix.workload_size_limit),
      trustForeignPaths: unix.foreign_mount_namespaces,
      usesProgram,
      clock,
      log: log.child({ component: 'unix' }),
    }),
  ]
}

/** In the file 0 is no limit and -1 no hashing, as in SPIRE's. */
function sizeLimit(written: number): number {
  if (written < 0) return 0
  return written === 0 ? Number.MAX_SAFE_INTEGER : written
}
