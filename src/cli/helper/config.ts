import { list, map, object } from '#config/containers.ts'
import { boolean, choice, path, text } from '#config/fields.ts'
import type { Schema, Value } from '#config/schema.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'

/** How many JWT-SVIDs one helper keeps. */
const maxJwtSvids = 100

const fileMode = (): Schema<number> =>
  text({ maxBytes: 5 }).as((written) => {
    const match = /^0?([0-7]{3})$/.exec(written)
    if (match?.[1] === undefined) {
      throw new SyntaxError(`is '${written}'; write the permissions in octal, in quotes: "0640"`)
    }
    return Number.parseInt(match[1], 8)
  })

/** The name of a file below cert_dir. */
const fileName = (): Schema<string> =>
  text({ maxBytes: 200 }).as((name) => {
    if (/^[A-Za-z0-9][\w.@+-]*$/.test(name) && name !== linkName) return name
    throw new SyntaxError(
      `is '${name}'; a name in cert_dir is letters, digits and ._@+-, begins with a letter or digit, and is not '${linkName}'`,
    )
  })

const userName = (): Schema<string> =>
  text({ maxBytes: 256 }).as((name) => {
    if (/^(\d{1,10}|[A-Za-z_][\w.@\\$-]*)$/.test(name)) return name
    throw new SyntaxError(`is '${name}'; it is a name or a number in quotes`)
  })

const unitName = (): Schema<string> =>
  text({ maxBytes: 255 }).as((name) => {
    if (/^[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]*\.(service|socket|target)$/.test(name)) return name
    throw new SyntaxError(`is '${name}'; a unit has its whole name: nginx.service`)
  })

const signalNames = [
  'SIGHUP',
  'SIGUSR1',
  'SIGUSR2',
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGWINCH',
] as const

const filesByTrustDomain = () =>
  map({ name: 'trust domain', parse: parseTrustDomain }, fileName()).default({})

/** The name that leads to the files of the present version; see `VersionedDirectory`. */
export const linkName = 'current'

/** The keys of helper.yaml, by spiffe-helper's names wherever the meaning is the same. */
export const helperConfigSchema = object({
  agent_address: text()
    .optional()
    .describe(
      'The Workload API: a path or `unix:///path`. Default: SPIFFE_ENDPOINT_SOCKET, else /run/assay/agent/api.sock.',
    ),
  cert_dir: path().describe(
    'Where the files go. Made when it is not there. It must belong to the helper’s user or root, and nobody else may write there.',
  ),
  layout: choice('versions', 'plain')
    .default('versions')
    .describe(
      '`versions`: the names are links, and one step exchanges all files at once. `plain`: they are files, replaced one after another, for programs that take no links.',
    ),
  svid_file_name: fileName()
    .optional()
    .describe('The certificate and its intermediates, leaf first, PEM.'),
  svid_key_file_name: fileName().optional().describe('The private key, PKCS#8, PEM.'),
  svid_and_key_file_name: fileName()
    .optional()
    .describe('Key and certificates in one file, as HAProxy reads them. It has key_file_mode.'),
  svid_bundle_file_name: fileName()
    .optional()
    .describe('The authorities of the own trust domain, PEM.'),
  include_federated_domains: boolean()
    .default(false)
    .describe(
      'Put the authorities of federated trust domains into svid_bundle_file_name too. Whoever verifies with that file must look at the trust domain in the SPIFFE ID.',
    ),
  federated_bundle_file_names: filesByTrustDomain().describe(
    'A file of its own for the authorities of each of these trust domains, PEM.',
  ),
  add_intermediates_to_bundle: boolean()
    .default(false)
    .describe('Put intermediates into svid_bundle_file_name and not beside the certificate.'),
  omit_expired: boolean()
    .default(false)
    .describe('Leave authorities out of bundles that have expired or are not valid yet.'),
  hint: text({ maxBytes: 1024 })
    .optional()
    .describe('Which of several identities: the one with this hint. Default: the first.'),
  post_quantum: boolean()
    .default(false)
    .describe(
      'Keep post-quantum SVIDs and bundles (ML-DSA) instead, of entries whose hint is `pq` or begins with `pq:`. For classical ones too run a second helper, with another cert_dir.',
    ),
  jwt_svids: list(
    object({
      jwt_audience: text({ maxBytes: 2048 }).describe('Who the token is for.'),
      jwt_extra_audiences: list(text({ maxBytes: 2048 })).default([]),
      jwt_svid_file_name: fileName().describe('The token, without an end of line.'),
    }),
  )
    .default([])
    .describe('JWT-SVIDs to keep, each renewed at half of its life.'),
  jwt_bundle_file_name: fileName()
    .optional()
    .describe('The JWT keys of the own trust domain: a JWK set.'),
  federated_jwt_bundle_file_names: filesByTrustDomain().describe(
    'A file of its own for the JWK set of each of these trust domains. They are never put into one: a key proves its own trust domain alone.',
  ),
  owner: userName()
    .optional()
    .describe('Whose the files are: a user, by name or number. Only root can give files away.'),
  group: userName()
    .optional()
    .describe(
      'Their group, by name or number. Default: that of owner, or of the helper’s process.',
    ),
  cert_file_mode: fileMode()
    .default('0644')
    .describe('Permissions of certificates and bundles, octal, in quotes.'),
  key_file_mode: fileMode().default('0600').describe('Permissions of files with the key.'),
  jwt_bundle_file_mode: fileMode().default('0644').describe('Permissions of JWK sets.'),
  jwt_svid_file_mode: fileMode().default('0600').describe('Permissions of JWT-SVIDs.'),
  pid_file_name: path()
    .optional()
    .describe('A file whose first line is the process to signal when key or bundles changed.'),
  renew_signal: choice(...signalNames)
    .default('SIGHUP')
    .describe('The signal it gets.'),
  reload_unit: unitName()
    .optional()
    .describe('A systemd unit to reload, or restart where it cannot, if it runs: nginx.service.'),
  reload_command: list(text())
    .optional()
    .describe('A program and its arguments to run. No shell reads them.'),
  daemon_mode: boolean()
    .default(true)
    .describe('Follow the agent. `false`: write once and end, as --once does.'),
}).as(checkTogether)

/** What helper.yaml says, checked. Paths are absolute, modes numbers. */
export type HelperConfig = Value<typeof helperConfigSchema>

interface Together {
  readonly svid_file_name: string | undefined
  readonly svid_key_file_name: string | undefined
  readonly svid_and_key_file_name: string | undefined
  readonly svid_bundle_file_name: string | undefined
  readonly federated_bundle_file_names: ReadonlyMap<string, string>
  readonly jwt_svids: readonly { readonly jwt_svid_file_name: string }[]
  readonly jwt_bundle_file_name: string | undefined
  readonly federated_jwt_bundle_file_names: ReadonlyMap<string, string>
  readonly pid_file_name: string | undefined
  readonly reload_unit: string | undefined
  readonly reload_command: readonly string[] | undefined
}

/** What no key can be judged by alone. */
function checkTogether<W extends Together>(written: W) {
  const names = [
    written.svid_file_name,
    written.svid_key_file_name,
    written.svid_and_key_file_name,
    written.svid_bundle_file_name,
    ...written.federated_bundle_file_names.values(),
    ...written.jwt_svids.map((svid) => svid.jwt_svid_file_name),
    written.jwt_bundle_file_name,
    ...written.federated_jwt_bundle_file_names.values(),
  ].filter((name) => name !== undefined)
  if (names.length === 0) {
    throw new SyntaxError('names no file to write; give svid_file_name and svid_key_file_name')
  }
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new SyntaxError(`two files would have the name '${twice}'`)
  if (written.jwt_svids.length > maxJwtSvids) {
    throw new SyntaxError(`jwt_svids has more than ${maxJwtSvids} items`)
  }
  const reloads = (['pid_file_name', 'reload_unit', 'reload_command'] as const).filter(
    (key) => written[key] !== undefined,
  )
  if (reloads.length > 1) throw new SyntaxError(`${reloads.join(' and ')} are given; choose one`)
  const [program] = written.reload_command ?? ['/']
  if (program?.startsWith('/') !== true) {
    throw new SyntaxError('reload_command begins with the whole path of a program: /usr/sbin/nginx')
  }
  return written
}
