import { join } from 'node:path'
import { list, object, oneOf } from '#config/containers.ts'
import { healthChecks, ip, logFormat, logLevel, prometheus } from '#config/daemon-fields.ts'
import { boolean, choice, duration, integer, path, port, text } from '#config/fields.ts'
import { type Pkcs11Uri, parsePkcs11Uri } from '#config/pkcs11-uri.ts'
import type { Value } from '#config/schema.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { certificateQuirks } from '#tpm/verify/certificate-quirks.ts'
import { type CallSelection, parseCalls } from './administrators/calls.ts'

const keyType = () => choice('ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096')

const tokenFields = {
  uri: text()
    .as(parsePkcs11Uri)
    .optional()
    .describe(
      'Module, token and PIN file as one PKCS#11 URI (RFC 7512): `pkcs11:token=assay;serial=…?module-path=/usr/lib/…&pin-source=file:/etc/assay/hsm-pin`. It takes the place of module, token_label, token_serial and pin_file; model and manufacturer may be in it, pin-value may not.',
    ),
  module: path()
    .optional()
    .describe('The PKCS#11 library of the HSM, such as /usr/lib/softhsm/libsofthsm2.so.'),
  token_label: text({ maxBytes: 32 })
    .optional()
    .describe('The label of the token that holds the keys. Required with module.'),
  token_serial: text({ maxBytes: 16 })
    .optional()
    .describe('Its serial number, where several tokens have that label.'),
  pin_file: path()
    .optional()
    .describe(
      'A file with the PIN of the token’s user, readable by its owner alone. Default: the credential hsm-pin that systemd passes. The PIN is tried once and never again until an operator says so, because tokens lock themselves.',
    ),
  sessions: integer({ min: 1, max: 64 })
    .default(4)
    .describe(
      'How many signatures the token is asked for at a time. Raise it for an HSM that is far away or slow and allows more.',
    ),
}

interface WrittenToken {
  readonly uri: Pkcs11Uri | undefined
  readonly module: string | undefined
  readonly token_label: string | undefined
  readonly token_serial: string | undefined
  readonly pin_file: string | undefined
  readonly sessions: number
}

/** A token, whichever way it was written. */
function resolveToken(written: WrittenToken) {
  const { uri, module, token_label, token_serial, pin_file, sessions } = written
  if (uri !== undefined) {
    if (token_label !== undefined || token_serial !== undefined || pin_file !== undefined) {
      throw new SyntaxError('the uri says which token and PIN file: leave the other keys out')
    }
    return {
      module: uri.modulePath,
      token_label: uri.token,
      token_serial: uri.serial,
      token_model: uri.model,
      token_manufacturer: uri.manufacturer,
      pin_file: uri.pinFile,
      sessions,
    }
  }
  if (module === undefined) throw new SyntaxError('module is missing')
  if (token_label === undefined) throw new SyntaxError('token_label is missing')
  const none = { token_model: undefined, token_manufacturer: undefined }
  return { module, token_label, token_serial, ...none, pin_file, sessions }
}

const keyManagerSchema = oneOf({
  pkcs11: object(
    {
      ...tokenFields,
      standby: object(
        {
          ...tokenFields,
          promote_after: duration({ min: '10s', max: '24h' })
            .default('5m')
            .describe(
              'How long the key of an active authority may be unable to sign before the prepared one, on the other token, takes over.',
            ),
        },
        { exactlyOne: [['uri', 'module']] },
      )
        .as((standby) => ({ ...resolveToken(standby), promote_after: standby.promote_after }))
        .optional()
        .describe(
          'A second token. The successor of each authority is then kept ready on the token that does not hold the active one, is in the bundle all the time, and takes over when that token is away. Default of its PIN file: the credential hsm-pin-standby.',
        ),
    },
    { exactlyOne: [['uri', 'module']] },
  ).as((written) => ({ ...resolveToken(written), standby: written.standby })),
  disk: object({
    path: path()
      .optional()
      .describe(
        'The file for the keys. Default: `keys.json` in data_dir. Whoever can read it can sign as this trust domain.',
      ),
  }),
  memory: object({}),
}).describe('Where signing keys are. Use pkcs11; disk is for trying things out, memory for tests.')

const upstreamCertificates = {
  cert_file_path: path().describe(
    'PEM: the certificate of the CA that signs, then those of its issuers as far as they are no roots.',
  ),
  bundle_file_path: path()
    .optional()
    .describe(
      'PEM: the roots that verifiers are to trust. Default: the one certificate in cert_file_path, which is then self-signed.',
    ),
}

const upstreamAuthoritySchema = oneOf({
  disk: object({
    ...upstreamCertificates,
    key_file_path: path().describe(
      'The key of that CA, PEM without a passphrase, readable by its owner alone.',
    ),
  }),
  pkcs11: object({
    ...upstreamCertificates,
    module: path().describe('The PKCS#11 library of the HSM with the key of that CA.'),
    token_label: text({ maxBytes: 32 }).describe('The label of the token that holds it.'),
    token_serial: text({ maxBytes: 16 })
      .optional()
      .describe('Its serial number, where several tokens have that label.'),
    pin_file: path()
      .optional()
      .describe(
        'A file with the PIN of the token’s user, readable by its owner alone. Default: the credential upstream-hsm-pin that systemd passes.',
      ),
    key_label: text({ maxBytes: 128 }).describe(
      'The label of the key pair, as `assay ceremony` made it.',
    ),
  }),
})
  .optional()
  .describe(
    'The CA that certifies this server’s X.509 authorities: the server is then an intermediate. The files are read again all the time, so that a renewed CA is picked up without a restart. Default: none, the authorities are self-signed.',
  )

const nodeAttestorsSchema = object({
  tpm: object({
    endorsement_ca: path()
      .optional()
      .describe(
        'PEM certificates, a file or a directory of them, of the TPM makers that are trusted. Without any, the inventory alone decides.',
      ),
    allow: choice('inventory', 'endorsement_ca')
      .default('inventory')
      .describe(
        'Which TPMs may join: `inventory`, those an operator has allowed (`assay inventory`); `endorsement_ca`, every TPM of the trusted makers that is not denied or banned.',
      ),
    expiry: choice('enforce', 'enforce-at-enrolment')
      .default('enforce-at-enrolment')
      .describe(
        'Whether endorsement certificates must be unexpired always, or only until the TPM is allowed in the inventory: chips outlive their certificates.',
      ),
    tolerate: list(choice(...certificateQuirks))
      .optional()
      .describe(
        'Which known mistakes of makers in endorsement certificates are let pass. Default: all of these. `[]`: none.',
      ),
    pcrs: list(integer({ min: 0, max: 23 }))
      .default([0, 1, 2, 3, 4, 5, 6, 7, 9, 14])
      .describe(
        'The SHA-256 registers that are quoted and become selectors. Not 10 where IMA extends it all the time.',
      ),
  })
    .optional()
    .describe('Nodes prove the TPM 2.0 they have.'),
  join_token: object({})
    .optional()
    .describe('Nodes show a one-time token (`assay token generate`).'),
})
  .default({})
  .describe('How nodes prove themselves. Without any, no node can join.')

const agreeing = () => integer({ min: 1, max: 5, unit: 'administrators' }).default(1)

/** @throws SyntaxError unless it names whole path segments of a SPIFFE ID. */
const parsePrefix = (text: string): SpiffeId => parseSpiffeId(text.replace(/\/$/, ''))

const administratorSchema = object(
  {
    unix_user: text({ maxBytes: 256 })
      .optional()
      .describe('A Unix user on this machine, by name or (quoted) number.'),
    unix_group: text({ maxBytes: 256 })
      .optional()
      .describe('A Unix group, by name or (quoted) number: its members, supplementary or not.'),
    spiffe_id: text({ maxBytes: 2048 })
      .as(parseSpiffeId)
      .optional()
      .describe('A SPIFFE ID over TLS; of another trust domain, when its bundle is here.'),
    calls: list(text({ maxBytes: 256 }))
      .as((names): CallSelection => parseCalls(names))
      .optional()
      .describe(
        'What may be called: `read` (all that changes nothing), `entries`, `nodes`, `inventory`, `bundles`, `svids`, `authorities`, `server`, `backup`, a method such as `Entry/GetEntry`, or `Entry/*`. Default: everything.',
      ),
    spiffe_id_prefixes: list(text({ maxBytes: 2048 }).as(parsePrefix))
      .as((prefixes) => {
        if (prefixes.length > 0) return prefixes
        throw new SyntaxError('names no SPIFFE ID: leave the key out for all of them')
      })
      .optional()
      .describe(
        'Only entries, SVIDs and agents of these SPIFFE IDs and of those below them, by whole path segments. Calls that are not about single SPIFFE IDs are then refused. Default: any.',
      ),
  },
  { exactlyOne: [['unix_user', 'unix_group', 'spiffe_id']] },
).as((row) => ({ ...row, calls: row.calls ?? ('all' as const) }))

/** The keys of server.yaml, by SPIRE's names wherever the meaning is SPIRE's. */
export const serverConfigSchema = object({
  trust_domain: text({ maxBytes: 255 })
    .as(parseTrustDomain)
    .describe('The trust domain this server issues for, such as example.org.'),
  data_dir: path().describe('What the server keeps. Made when it is not there, with mode 0700.'),
  bind_address: ip().default('0.0.0.0').describe('Where agents reach the server: an IP address.'),
  bind_port: port({ ephemeral: true }).default(8081).describe('The TCP port for agents.'),
  socket_path: path()
    .default('/run/assay/server.sock')
    .describe(
      'The Unix socket of the administration API. The socket has mode 0770: who may open it administers the trust domain. Its directory is made with mode 0755, because the agent’s socket may be below it.',
    ),
  ca_ttl: duration({ min: '5m', max: '87600h' })
    .default('24h')
    .describe('Lifetime of the X.509 authority and of JWT signing keys.'),
  ca_key_type: keyType()
    .optional()
    .describe(
      'Key type of the X.509 authority and of the server’s own SVID. Default: ec-p256, and ec-p384 with the crypto_profile cnsa2.',
    ),
  jwt_key_type: keyType()
    .optional()
    .describe('Key type of JWT signing keys. Default: that of ca_key_type.'),
  ca_subject: object({
    country: list(text({ maxBytes: 2 })).default(['US']),
    organization: list(text({ maxBytes: 64 })).default(['SPIFFE']),
    common_name: text({ maxBytes: 64 }).optional(),
  })
    .default({})
    .describe('The subject of the X.509 authority’s certificate.'),
  jwt_issuer: text({ maxBytes: 2048 })
    .optional()
    .describe('The `iss` claim of JWT-SVIDs. Without it they carry none.'),
  default_x509_svid_ttl: duration({ min: '10s' })
    .default('1h')
    .describe('Lifetime of X.509-SVIDs whose entry says nothing.'),
  default_jwt_svid_ttl: duration({ min: '10s' })
    .default('5m')
    .describe('Lifetime of JWT-SVIDs whose entry says nothing.'),
  agent_ttl: duration({ min: '10s' })
    .optional()
    .describe('Lifetime of agents’ SVIDs. Default: default_x509_svid_ttl.'),
  admin_ids: list(text({ maxBytes: 2048 }).as(parseSpiffeId))
    .default([])
    .describe(
      'SPIFFE IDs that may administer over TLS without an entry. One of another trust domain needs that domain’s bundle here.',
    ),
  administrators: list(administratorSchema)
    .optional()
    .describe(
      'Who may administer, and how far; who is in several rows may do what any of them allows. Without this key: whoever may open the socket, with all rights. With it, local callers are told apart by user and group; root and the user the server runs as keep all rights. `admin_ids` and entries with the admin flag give all rights to an ID that has no row.',
    ),
  approvals: object({
    entries: agreeing(),
    nodes: agreeing().describe('Not for a ban: that must not wait for anybody.'),
    inventory: agreeing().describe('Not for denying and banning TPMs under the name they have.'),
    bundles: agreeing(),
    svids: agreeing(),
    authorities: agreeing(),
    server: agreeing(),
    backup: agreeing().describe(
      'A backup holds everything but keys and join tokens: entries, nodes, inventory, bundles.',
    ),
  })
    .default({})
    .describe(
      'How many administrators have to agree before something of a set is changed or issued, who asks included (`assay approval`). Where any set needs more than one, so does whatever gives somebody rights.',
    ),
  datastore: oneOf({
    sqlite: object({
      path: path().optional().describe('Default: `datastore.sqlite3` in data_dir.'),
    }),
  })
    .default({ sqlite: {} })
    .describe('Where entries, nodes and bundles are kept.'),
  key_manager: keyManagerSchema,
  upstream_authority: upstreamAuthoritySchema,
  signer_socket_path: path()
    .optional()
    .describe(
      'The Unix socket of assay-signer as a service of its own, such as /run/assay-signer/socket, with a user of its own that alone has the PIN. It reads the tokens of this file itself. Default: the server starts assay-signer, as its own user.',
    ),
  node_attestors: nodeAttestorsSchema,
  ratelimit: object({
    attestation: boolean()
      .default(true)
      .describe('One attestation per second and source address; more have to wait.'),
    signing: boolean()
      .default(true)
      .describe('500 signatures of each kind per second and source address; more have to wait.'),
  })
    .default({})
    .describe('Limits on what one address may ask for over TCP.'),
  replacement_spread: duration({ min: '0s', max: '1h' })
    .default('10s')
    .describe(
      'Over how long agents spread the replacement of SVIDs when their authority is tainted, so that a large fleet does not ask all at once. `0s`: every agent asks at once.',
    ),
  propagation_delay: duration({ min: '0s', max: '24h' })
    .default('60s')
    .describe(
      'How long a new authority is in the bundle at least before it signs, for verifiers that no agent answers for: programs that read the bundle from a file, other trust domains. A twelfth of ca_ttl at most.',
    ),
  prune_attested_nodes_expired_for: duration({ min: '1m' })
    .optional()
    .describe(
      'Forget nodes whose SVID expired this long ago and that can attest again. Default: never.',
    ),
  health_checks: healthChecks(8082),
  telemetry: object({
    prometheus: prometheus(9988),
    by_namespace: boolean()
      .default(false)
      .describe(
        'Count entries and SVIDs by namespace too: the first path segment of the SPIFFE ID, whose names then show in the metrics. At most 50; the rest is `other`.',
      ),
  })
    .default({})
    .describe('Metrics. Default: none are served.'),
  log_level: logLevel(),
  log_format: logFormat(),
  audit_log_enabled: boolean()
    .default(true)
    .describe('One record of each call that changes, issues or refuses something.'),
  require_pq_kem: boolean()
    .default(false)
    .describe(
      'Turn agents away that cannot agree on keys with X25519MLKEM768 or SecP384r1MLKEM1024.',
    ),
  pq_signatures: choice('off', 'hybrid')
    .default('off')
    .describe(
      '`hybrid`: certificates carry a second, post-quantum signature (ML-DSA) that those who do not know it pass over. Takes effect by a rotation that begins with the next start.',
    ),
  pq_parameter_set: choice('ml-dsa-44', 'ml-dsa-65', 'ml-dsa-87')
    .optional()
    .describe(
      'Which ML-DSA that is. Each is slower and larger than the one before. Default: ml-dsa-44, and ml-dsa-87 with the crypto_profile cnsa2.',
    ),
  pq_policy: choice('prefer', 'require')
    .default('prefer')
    .describe(
      'What is wanted of post-quantum signatures of agents. `prefer`: where they are they must be right. `require`: they are there. Only when all of them have them: see docs/post-quantum.md.',
    ),
  crypto_profile: choice('default', 'cnsa2')
    .default('default')
    .describe(
      'Which algorithms are used. `cnsa2`, after CNSA 2.0: P-384 keys, TLS with SecP384r1MLKEM1024 and AES-256 alone, and ML-DSA-87 where pq_signatures is on. The same in agent.yaml.',
    ),
  max_connections: integer({ min: 1, max: 1_000_000 })
    .default(20_000)
    .describe('The most TLS connections that are open at once.'),
}).as(resolveConfig)

/** What server.yaml says, checked, with every default filled in. Durations are in seconds, paths absolute. */
export type ServerConfig = Value<typeof serverConfigSchema>

/** What SIGHUP changes in a server that runs; all else needs a restart. */
export const liveKeys: readonly (keyof ServerConfig)[] = [
  'log_level',
  'default_x509_svid_ttl',
  'default_jwt_svid_ttl',
  'agent_ttl',
  'admin_ids',
  'administrators',
  'ratelimit',
  'replacement_spread',
]

/** The parameter set of the post-quantum keys that are to be made; undefined: none are. */
export const pqParameterSet = (config: ServerConfig): MlDsaParameterSet | undefined =>
  config.pq_signatures === 'hybrid' ? config.pq_parameter_set : undefined

/** Where post-quantum keys are kept. */
export const pqKeysPath = (config: ServerConfig): string =>
  join(config.data_dir, 'post-quantum-keys.json')

interface Written {
  readonly trust_domain: string
  readonly data_dir: string
  readonly administrators:
    | readonly { readonly spiffe_id_prefixes: readonly SpiffeId[] | undefined }[]
    | undefined
  readonly default_x509_svid_ttl: number
  readonly ca_key_type: Value<ReturnType<typeof keyType>> | undefined
  readonly crypto_profile: 'default' | 'cnsa2'
  readonly pq_signatures: 'off' | 'hybrid'
  readonly upstream_authority: object | undefined
  readonly pq_parameter_set: MlDsaParameterSet | undefined
  readonly agent_ttl: number | undefined
  readonly jwt_key_type: Value<ReturnType<typeof keyType>> | undefined
  readonly datastore: { readonly kind: 'sqlite'; readonly path: string | undefined }
  readonly key_manager: Value<typeof keyManagerSchema>
}

/** Fills in the defaults that follow from other keys. @throws SyntaxError when keys contradict each other. */
function resolveConfig<W extends Written>(written: W) {
  const { data_dir, datastore, key_manager, crypto_profile } = written
  const caKeyType = written.ca_key_type ?? (crypto_profile === 'cnsa2' ? 'ec-p384' : 'ec-p256')
  const jwtKeyType = written.jwt_key_type ?? caKeyType
  for (const [key, type] of Object.entries({ ca_key_type: caKeyType, jwt_key_type: jwtKeyType })) {
    if (crypto_profile === 'cnsa2' && type !== 'ec-p384') {
      throw new SyntaxError(`${key} is ${type}, and the crypto_profile cnsa2 has ec-p384 alone`)
    }
  }
  for (const prefix of written.administrators?.flatMap((row) => row.spiffe_id_prefixes ?? []) ??
    []) {
    if (trustDomainOf(prefix) === written.trust_domain) continue
    throw new SyntaxError(
      `administrators: spiffe_id_prefixes has ${prefix}, which is not of the trust domain ${written.trust_domain}`,
    )
  }
  if (written.pq_signatures === 'hybrid' && written.upstream_authority !== undefined) {
    throw new SyntaxError(
      'pq_signatures is hybrid, and upstream_authority signs the certificate of this server classically alone: no chain below it could be verified both ways (docs/post-quantum.md); leave one of the two out',
    )
  }
  const parameterSet =
    written.pq_parameter_set ?? (crypto_profile === 'cnsa2' ? 'ml-dsa-87' : 'ml-dsa-44')
  if (crypto_profile === 'cnsa2' && parameterSet !== 'ml-dsa-87') {
    throw new SyntaxError(
      `pq_parameter_set is ${parameterSet}, and the crypto_profile cnsa2 has ml-dsa-87 alone`,
    )
  }
  return {
    ...written,
    ca_key_type: caKeyType,
    pq_parameter_set: parameterSet,
    agent_ttl: written.agent_ttl ?? written.default_x509_svid_ttl,
    jwt_key_type: jwtKeyType,
    datastore: { ...datastore, path: datastore.path ?? join(data_dir, 'datastore.sqlite3') },
    key_manager:
      key_manager.kind === 'disk'
        ? { kind: 'disk' as const, path: key_manager.path ?? join(data_dir, 'keys.json') }
        : key_manager,
  }
}

/** What is allowed but probably not meant, for the log of every start. One sentence each. */
export function configWarnings(config: ServerConfig): readonly string[] {
  const warnings: string[] = []
  if (config.key_manager.kind === 'memory') {
    warnings.push(
      'signing keys are held in memory: a restart makes a new trust anchor that nobody has; use key_manager.pkcs11',
    )
  }
  if (config.key_manager.kind === 'disk') {
    warnings.push(
      `signing keys are in the file ${config.key_manager.path}, and no HSM protects them; use key_manager.pkcs11`,
    )
  }
  // An authority is replaced when a sixth of its life, at most seven days, is left.
  const longestTtl = Math.min(config.ca_ttl / 6, 7 * 86_400)
  for (const key of ['default_x509_svid_ttl', 'default_jwt_svid_ttl', 'agent_ttl'] as const) {
    if (config[key] > longestTtl) {
      warnings.push(
        `${key} is more than a sixth of ca_ttl (or seven days), so SVIDs may be cut short; ca_ttl should be at least ${Math.ceil((config[key] * 6) / 3600)}h`,
      )
    }
  }
  if (Object.values(config.node_attestors).every((attestor) => attestor === undefined)) {
    warnings.push('node_attestors names none, so no node can join')
  }
  for (const id of config.admin_ids) {
    if (trustDomainOf(id) !== config.trust_domain) {
      warnings.push(`admin_ids grants administration to another trust domain: ${id}`)
    }
  }
  const { inventory, nodes } = config.approvals
  if (inventory > 1 && nodes === 1 && config.node_attestors.join_token !== undefined) {
    warnings.push(
      'approvals.inventory is more than 1 and approvals.nodes is not, so one administrator can let a node in by a join token',
    )
  }
  for (const { spiffe_id: id } of config.administrators ?? []) {
    if (id !== undefined && trustDomainOf(id) !== config.trust_domain) {
      warnings.push(`administrators has an ID of another trust domain: ${id}`)
    }
  }
  return warnings
}
