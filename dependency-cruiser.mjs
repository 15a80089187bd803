// Who may import whom. Checked on every change; test/architecture/ holds a fixture that breaks each
// rule once, so that a checker which has stopped reading .ts files fails instead of passing.
// Needs @swc/core beside TypeScript 7: dependency-cruiser 17 reads .ts through TypeScript < 7 or swc.
// @swc/core's visitor stops at `using` declarations, and dependency-cruiser reads with that visitor.
import swcVisitor from '@swc/core/Visitor.js'

const { visitStatement } = swcVisitor.Visitor.prototype
swcVisitor.Visitor.prototype.visitStatement = function (statement) {
  if (statement.type !== 'UsingDeclaration') return visitStatement.call(this, statement)
  statement.decls = this.visitVariableDeclarators(statement.decls)
  return statement
}

const halves = '(server|agent)'

/** @param {string} name @param {object} from @param {object} to @param {string} comment */
const forbid = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to })

const layer = (folder, ...below) =>
  forbid(
    `${folder}-layer`,
    `${folder}/ may import only ${below.join(', ') || 'itself'}`,
    { path: `^src/${folder}/` },
    { path: '^src/', pathNot: `^src/(${[folder, ...below].join('|')})/` },
  )

// biome-ignore lint/style/noDefaultExport: dependency-cruiser loads its configuration by the default export
export default {
  forbidden: [
    forbid('no-cycles', 'also through type-only imports', {}, { circular: true }),
    forbid(
      'no-unresolved',
      'every import names a real file; the console’s page asks for the chart library by its place on the page',
      {},
      { couldNotResolve: true, pathNot: '^/uplot/' },
    ),

    layer('base'),
    layer('pki', 'base'),
    // Above pki: everything post-quantum is in one folder, and nothing classical can come to depend on it.
    layer('pq-crypto', 'base', 'pki'),
    layer('spiffe', 'base', 'pki', 'pq-crypto'),
    layer('issuance', 'base', 'pki', 'pq-crypto', 'spiffe'),
    layer('config', 'base'),
    layer('telemetry', 'base'),
    layer('host', 'base'),
    layer('daemon', 'base', 'config', 'telemetry', 'host'),
    layer('tpm', 'base', 'pki', 'pq-crypto'),
    layer('hsm', 'base', 'pki', 'pq-crypto', 'host'),
    layer('ceremony', 'base', 'pki', 'pq-crypto', 'spiffe', 'issuance', 'config', 'host', 'hsm'),
    layer('rpc', 'base', 'pki', 'pq-crypto', 'spiffe', 'host'),
    layer('workload-client', 'base', 'pki', 'pq-crypto', 'spiffe', 'host', 'rpc'),
    layer('console', 'base', 'pki', 'pq-crypto', 'spiffe', 'tpm', 'host', 'attestation', 'rpc'),
    layer('attestation', 'base', 'pki', 'pq-crypto', 'spiffe', 'tpm'),

    forbid(
      'signer-layer',
      'the service reads the server’s configuration, and shares nothing else with it',
      { path: '^src/signer/' },
      {
        path: '^src/',
        pathNot: '^src/(signer|base|config|hsm)/|^src/server/config\\.ts',
      },
    ),

    forbid(
      'pure-does-no-io',
      'parsers and verifiers are functions of their arguments',
      { path: '^src/(pki|pq-crypto|spiffe|issuance|attestation|tpm/(wire|verify))/' },
      {
        path: '^(node:)?(fs|fs/promises|net|tls|http|https|http2|dgram|child_process|worker_threads|process|os|timers|timers/promises)$',
      },
    ),
    forbid(
      'halves-never-meet',
      'what both need moves down',
      { path: `^src/${halves}/` },
      { path: `^src/${halves}/`, pathNot: '^src/$1/' },
    ),
    forbid(
      'server-never-opens-a-tpm',
      'the server verifies evidence; only the agent owns a TPM',
      { path: '^src/(server|attestation)/' },
      { path: '^src/tpm/device/' },
    ),
    forbid(
      'hsm-behind-key-manager',
      'one door to the HSM for each thing that is done with it',
      {
        path: '^src/',
        pathNot:
          '^src/(hsm/|ceremony/|signer/|server/plugin/(key-manager|upstream-authority)/pkcs11)',
      },
      { path: '^src/hsm/' },
    ),
    forbid(
      'wire-types-stay-at-the-edge',
      'domain code never sees a protobuf message',
      {
        path: '^src/',
        pathNot: `^src/(rpc|workload-client|server/api|agent/(workload-api|sds|delegated-identity|broker|admin-api|server-client)|cli|console)/`,
      },
      { path: '^src/rpc/gen/' },
    ),
    forbid(
      'sql-behind-datastore',
      'everyone else takes a Datastore',
      { path: '^src/', pathNot: '^src/server/(datastore/|offline/|main\\.ts)' },
      { path: '^src/server/datastore/sql/' },
    ),
    forbid(
      'plugins-are-islands',
      'a plugin knows its contract and the libraries, not its process or its siblings',
      { path: `^src/${halves}/plugin/([^/]+)/` },
      { path: `^src/${halves}/`, pathNot: '^src/$1/plugin/$2/' },
    ),
    forbid(
      'implementations-only-from-built-ins',
      'consumers import the contract plugin/<kind>/<kind>.ts',
      { path: '^src/', pathNot: `^src/${halves}/(catalog/built-ins\\.ts|plugin/)` },
      { path: `^src/${halves}/plugin/([^/]+)/`, pathNot: `^src/${halves}/plugin/([^/]+)/\\2\\.ts` },
    ),
    forbid(
      'mains-are-roots',
      'only the command line starts a process',
      { path: '^src/', pathNot: '^src/cli/' },
      { path: `^src/${halves}/main\\.ts` },
    ),
    forbid(
      'cli-speaks-the-api',
      'a command uses an RPC client, never the process’s insides; offline/ is for data that no process has',
      { path: '^src/(cli|console)/' },
      { path: `^src/${halves}/`, pathNot: `^src/(${halves}/(main|config)\\.ts|server/offline/)` },
    ),

    forbid(
      'door-pkcs11',
      'third-party code has one door each',
      { path: '^src/', pathNot: '^src/hsm/' },
      { path: 'pkcs11js|graphene-pk11' },
    ),
    forbid(
      'door-grpc',
      '',
      {
        path: '^src/',
        pathNot:
          '^src/(rpc|server/api|agent/(workload-api|sds|delegated-identity|broker|admin-api|server-client)|cli|console)/',
      },
      { path: '@connectrpc|@bufbuild|@grpc' },
    ),
    forbid(
      'door-databases',
      '',
      { path: '^src/', pathNot: '^src/server/(datastore/sql|offline)/' },
      { path: '^(node:)?sqlite$|(^|/)pg($|/)' },
    ),
    forbid(
      'door-native',
      'only two files load a .node addon',
      { path: '^src/', pathNot: '^src/(tpm/device|host)/native\\.ts' },
      { path: '\\.node$' },
    ),

    forbid(
      'fakes-only-in-tests',
      '',
      { path: '^src/', pathNot: '(\\.test|/fake-[^/]+)\\.ts$' },
      { path: '/fake-[^/]+\\.ts$' },
    ),
    forbid(
      'source-never-imports-tests',
      '',
      { path: '^src/', pathNot: '\\.test\\.ts$' },
      { path: '^test/|\\.test\\.ts$' },
    ),
    forbid(
      'cross-components-with-#',
      'a relative path never leaves its component',
      { path: '^src/([^/]+)/' },
      {
        path: '^src/',
        pathNot: '^src/$1/',
        dependencyTypes: ['local'],
        dependencyTypesNot: ['aliased'],
      },
    ),
  ],
  options: {
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
    parser: 'swc',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^test/architecture/fixture' },
  },
}
