import { dirname, sep } from 'node:path'
import { list, object, oneOf } from '#config/containers.ts'
import { healthChecks, logFormat, logLevel, prometheus } from '#config/daemon-fields.ts'
import { boolean, choice, duration, integer, path, port, text } from '#config/fields.ts'
import type { Value } from '#config/schema.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'

const nodeAttestorSchema = oneOf({
  tpm: object({
    tcti: text()
      .default('device:/dev/tpmrm0')
      .describe(
        'How the TPM is reached, as tpm2-tss writes it: `device:/dev/tpmrm0`, `tabrmd:`, `swtpm:port=2321`.',
      ),
  }),
  join_token: object(
    {
      token: text({ maxBytes: 1024 })
        .optional()
        .describe('The token itself. Prefer token_file: this file is often readable by more.'),
      token_file: path()
        .optional()
        .describe('A file with the token, read at each attempt; space around it is cut off.'),
    },
    { exactlyOne: [['token', 'token_file']] },
  ),
}).describe('How this node proves itself to the server.')

const unixSchema = object({
  discover_workload_path: boolean()
    .default(false)
    .describe(
      'Look at the program of every caller. Otherwise this is done only while an entry has a selector unix:path or unix:sha256.',
    ),
  workload_size_limit: integer({ min: -1, max: 2 ** 50, unit: 'bytes' })
    .default(512 * 2 ** 20)
    .describe('Larger programs get no unix:sha256 selector. 0: no limit; -1: none gets one.'),
  foreign_mount_namespaces: boolean()
    .default(false)
    .describe(
      'Report unix:path also for programs in other mount namespaces (containers), where whoever made the namespace chooses what a path means.',
    ),
})

/** The keys of agent.yaml, by SPIRE's names wherever the meaning is SPIRE's. */
export const agentConfigSchema = object(
  {
    trust_domain: text({ maxBytes: 255 })
      .as(parseTrustDomain)
      .describe('The trust domain this node belongs to, such as example.org.'),
    data_dir: path().describe('What the agent keeps. Made when it is not there, with mode 0700.'),
    server_address: text({ maxBytes: 255 }).describe('Host name or IP address of the server.'),
    server_port: port().default(8081).describe('TCP port of the server.'),
    trust_bundle_path: path()
      .optional()
      .describe('A file with the bundle that the server is verified with at the first contact.'),
    trust_bundle_url: text({ maxBytes: 4096 })
      .as(parseHttpsUrl)
      .optional()
      .describe('An https:// address to fetch that bundle from; its host is verified by Web PKI.'),
    insecure_bootstrap: boolean()
      .optional()
      .describe(
        'True: believe whoever answers at the first contact. Whoever stands in between becomes your trust anchor; for trials only.',
      ),
    trust_bundle_format: choice('pem', 'spiffe')
      .default('pem')
      .describe('PEM certificates, or a SPIFFE bundle document (JSON).'),
    socket_path: path()
      .default('/run/assay/agent/api.sock')
      .describe(
        'The Unix socket of the Workload API, which every local process may open. Its directory is made with mode 0755.',
      ),
    socket_aliases: list(path())
      .default([])
      .describe(
        'More sockets that serve the same, for workloads that look elsewhere: /run/spire/agent/public/api.sock.',
      ),
    admin_socket_path: path()
      .optional()
      .describe(
        'The Unix socket for operators (`assay why`), with mode 0770. Never in a directory of the Workload API. Default: none.',
      ),
    node_attestor: nodeAttestorSchema,
    workload_attestors: object({ unix: unixSchema.default({}) })
      .default({})
      .describe('How local processes are told apart.'),
    workload_x509_svid_key_type: choice('ec-p256', 'ec-p384', 'rsa-2048')
      .optional()
      .describe(
        'Key type of workloads’ X.509-SVIDs. Default: ec-p256, and ec-p384 with the crypto_profile cnsa2.',
      ),
    x509_svid_cache_max_size: integer({ min: 1, max: 1_000_000 })
      .default(1000)
      .describe('How many X.509-SVIDs are held ready. Those that a workload is using come on top.'),
    jwt_svid_cache_max_size: integer({ min: 1, max: 1_000_000 })
      .default(1000)
      .describe('How many JWT-SVIDs are held ready.'),
    sync_interval: duration({ min: '1s', max: '1h' })
      .default('5s')
      .describe('How often a server that cannot tell of changes (SPIRE’s) is asked for them.'),
    allow_unauthenticated_verifiers: boolean()
      .default(false)
      .describe('Give the bundle of the own trust domain also to callers that no entry matches.'),
    allowed_foreign_jwt_claims: list(text({ maxBytes: 255 }))
      .default([])
      .describe(
        'Claims that ValidateJWTSVID reports of tokens of other trust domains, beside sub, exp and aud.',
      ),
    require_pq_kem: boolean()
      .default(false)
      .describe(
        'Talk only to a server that does the key agreement X25519MLKEM768 or SecP384r1MLKEM1024.',
      ),
    pq_policy: choice('prefer', 'require')
      .default('prefer')
      .describe(
        'What is wanted of post-quantum signatures of the server. `prefer`: where they are they must be right. `require`: they are there. Only when the server has them: see docs/post-quantum.md.',
      ),
    crypto_profile: choice('default', 'cnsa2')
      .default('default')
      .describe(
        'Which algorithms are used. `cnsa2`, after CNSA 2.0: P-384 keys, and TLS with SecP384r1MLKEM1024 and AES-256 alone.',
      ),
    health_checks: healthChecks(8080),
    telemetry: object({
      prometheus: prometheus(9989),
    })
      .default({})
      .describe('Metrics. Default: none are served.'),
    log_level: logLevel(),
    log_format: logFormat(),
    log_selectors: list(text({ maxBytes: 1024 }))
      .default([])
      .describe(
        'Beginnings of selectors (`unix:uid:`) that refusals may name in the log. Default: none are logged; `assay why` shows them.',
      ),
  },
  { exactlyOne: [['trust_bundle_path', 'trust_bundle_url', 'insecure_bootstrap']] },
).as(resolveConfig)

/** What agent.yaml says, checked, with every default filled in. Durations are in seconds, paths absolute. */
export type AgentConfig = Value<typeof agentConfigSchema>

/** What SIGHUP changes in an agent that runs; all else needs a restart. */
export const liveKeys: readonly (keyof AgentConfig)[] = [
  'log_level',
  'trust_bundle_path',
  'trust_bundle_url',
  'trust_bundle_format',
  'insecure_bootstrap',
  'workload_attestors',
]

/** What is allowed but probably not meant, for the log of every start. One sentence each. */
export function configWarnings(config: AgentConfig): readonly string[] {
  const warnings: string[] = []
  if (config.insecure_bootstrap === true) {
    warnings.push(
      'insecure_bootstrap is on: whoever answers at the first contact becomes the trust anchor of this node; give trust_bundle_path',
    )
  }
  if (config.node_attestor.kind === 'join_token') {
    warnings.push(
      `node_attestor.join_token keeps the agent’s private key in ${config.data_dir}, because a token works once; use node_attestor.tpm`,
    )
  }
  if (config.workload_attestors.unix.foreign_mount_namespaces) {
    warnings.push(
      'workload_attestors.unix.foreign_mount_namespaces is on: unix:path is only as good as whoever may make mount namespaces on this node',
    )
  }
  return warnings
}

interface Written {
  readonly workload_x509_svid_key_type: 'ec-p256' | 'ec-p384' | 'rsa-2048' | undefined
  readonly crypto_profile: 'default' | 'cnsa2'
  readonly insecure_bootstrap: boolean | undefined
  readonly socket_path: string
  readonly socket_aliases: readonly string[]
  readonly admin_socket_path: string | undefined
}

/** Fills in the default that follows from another key. @throws SyntaxError when keys contradict each other. */
function resolveConfig<W extends Written>(written: W) {
  checkTogether(written)
  const { crypto_profile, workload_x509_svid_key_type: given } = written
  const keyType = given ?? (crypto_profile === 'cnsa2' ? 'ec-p384' : 'ec-p256')
  if (crypto_profile === 'cnsa2' && keyType !== 'ec-p384') {
    throw new SyntaxError(
      `workload_x509_svid_key_type is ${keyType}, and the crypto_profile cnsa2 has ec-p384 alone`,
    )
  }
  return { ...written, workload_x509_svid_key_type: keyType }
}

function checkTogether(written: Written): void {
  if (written.insecure_bootstrap === false) {
    throw new SyntaxError(
      'insecure_bootstrap is false and nothing else says how to trust the server: give trust_bundle_path or trust_bundle_url',
    )
  }
  const { admin_socket_path: admin } = written
  if (admin === undefined) return
  for (const socket of [written.socket_path, ...written.socket_aliases]) {
    const folder = dirname(socket)
    if (dirname(admin) === folder || admin.startsWith(folder === sep ? sep : folder + sep)) {
      throw new SyntaxError(
        `admin_socket_path ${admin} lies in ${folder}, which every workload may look into; choose another directory`,
      )
    }
  }
}

function parseHttpsUrl(written: string): URL {
  const url = URL.parse(written)
  if (url?.protocol !== 'https:') {
    throw new SyntaxError(`is ${JSON.stringify(written)}; it must be an https:// address`)
  }
  return url
}
