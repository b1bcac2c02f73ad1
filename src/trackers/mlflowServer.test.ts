import assert from 'node:assert/strict';
import { after, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MlflowStandIn } from '../../test/mlflowServer.js';
import { mlflowAccess, mlflowCall, type MlflowAccess } from './index.js';

const server = await MlflowStandIn.start();
after(() => server.stop());
beforeEach(() => {
  server.intercept = () => false;
  server.authorizations.length = 0;
});

const { signal } = new AbortController();
const create = (access: Partial<MlflowAccess> = {}, answerSeconds?: number): Promise<object> =>
  mlflowCall({ address: server.url, authorization: undefined, ...access }, answerSeconds)(
    'POST',
    'experiments/create',
    { name: `e${Math.random()}` },
    signal,
  );

/** Answers every request with a status. */
function answer(status: number, headers: Record<string, string> = {}, body: object = {}): void {
  server.intercept = (_request, response) => {
    response.writeHead(status, headers).end(JSON.stringify(body));
    return true;
  };
}

describe('mlflowAccess', () => {
  test('takes a token, or user and password, from the environment', () => {
    const address = 'http://host:5000';
    assert.deepEqual(mlflowAccess(`${address}/`, {}), { address, authorization: undefined });
    assert.deepEqual(mlflowAccess(`${address}/sub/`, { MLFLOW_TRACKING_TOKEN: 'secret' }), {
      address: `${address}/sub`,
      authorization: 'Bearer secret',
    });
    const named = { MLFLOW_TRACKING_USERNAME: 'ann', MLFLOW_TRACKING_PASSWORD: 'p' };
    // `ann:p` in base64.
    assert.equal(mlflowAccess(address, named).authorization, 'Basic YW5uOnA=');
  });
  test('env is MLFLOW_TRACKING_URI, whose user and password are in no address', () => {
    assert.deepEqual(mlflowAccess('env', { MLFLOW_TRACKING_URI: 'https://ann:p@host/mlflow' }), {
      address: 'https://host/mlflow',
      authorization: 'Basic YW5uOnA=',
    });
  });
  test('refuses a variable that is missing or names no server, without showing it', () => {
    const hint = 'Set it, or give the address: --set track.mlflow=http://localhost:5000.';
    const expected =
      'track.mlflow: expected MLFLOW_TRACKING_URI to be the address of a server, http://host:5000, received';
    assert.throws(() => mlflowAccess('env', {}), {
      ...{ code: 'E_CONFIG', message: `${expected} nothing.`, hint },
    });
    assert.throws(() => mlflowAccess('env', { MLFLOW_TRACKING_URI: 'postgresql://u:secret@db' }), {
      message: `${expected} an address that begins with postgresql:.`,
    });
    assert.throws(() => mlflowAccess('env', { MLFLOW_TRACKING_URI: 'mlruns' }), {
      message: `${expected} an address that begins with no scheme.`,
    });
  });
  test('refuses a setting with a password, without showing it', () => {
    assert.throws(() => mlflowAccess('http://ann:secret@host:5000', {}), {
      code: 'E_CONFIG',
      message:
        'track.mlflow: expected an address without user and password, which config.json would hold, received one with them for host:5000.',
      hint: 'Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.',
    });
  });
});

describe('mlflowCall', () => {
  test('sends who asks', async () => {
    await create({ authorization: 'Bearer secret' });
    await create();
    assert.deepEqual(server.authorizations, ['Bearer secret', undefined]);
  });
  test('a server that is not there may be there later', async () => {
    await assert.rejects(create({ address: 'http://127.0.0.1:9' }), {
      ...{ code: 'E_TRACKER', again: true, waitSeconds: undefined },
      message: /^expected an answer of http:\/\/127\.0\.0\.1:9, but fetch failed: .*\.$/,
      hint: 'Check that the server runs, and its address.',
    });
  });
  test('401 is final, is told with what to set, and never shows the token', async () => {
    answer(401, {}, { error_code: 'UNAUTHENTICATED', message: 'You are not authenticated.' });
    const expected = {
      again: false,
      message: `expected an answer of success of ${server.url}, received 401, UNAUTHENTICATED, You are not authenticated.`,
    };
    const names =
      'MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.';
    await assert.rejects(create(), { ...expected, hint: `Set ${names}` });
    const authorization = 'Bearer secret';
    await assert.rejects(create({ authorization }), { ...expected, hint: `Check ${names}` });
  });
  for (const status of [408, 429, 500, 503]) {
    test(`${status} may succeed later`, async () => {
      answer(status);
      await assert.rejects(create(), { again: true, waitSeconds: undefined });
    });
  }
  for (const status of [400, 403, 404]) {
    test(`${status} is final`, async () => {
      answer(status);
      await assert.rejects(create(), { again: false });
    });
  }
  test('Retry-After is heard', async () => {
    answer(429, { 'retry-after': '7' });
    await assert.rejects(create(), { again: true, waitSeconds: 7 });
  });
  test('a redirection is not followed: the token stays here', async () => {
    answer(302, { location: 'http://127.0.0.1:9/' });
    await assert.rejects(create({ authorization: 'Bearer secret' }), {
      again: false,
      message: `expected an answer of success of ${server.url}, received 302.`,
      hint: 'It leads elsewhere: give that address.',
    });
  });
  test('a connection that drops in the middle of an answer is asked again', async () => {
    server.intercept = (_request, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('{');
      setTimeout(() => response.destroy(), 20);
      return true;
    };
    await assert.rejects(create(), { again: true });
  });
  test('silence ends after the limit', async () => {
    server.intercept = () => true;
    await assert.rejects(create({}, 0.1), {
      again: true,
      message: `expected an answer of ${server.url}, but there was none within 0.1 seconds.`,
    });
  });
  test('time in which a step computes does not count against the server', async () => {
    server.intercept = (_request, response) => {
      setTimeout(() => response.end('{"experiment_id": "1"}'), 200);
      return true;
    };
    const answered = create({}, 1);
    await sleep(100);
    const until = performance.now() + 1500;
    while (performance.now() < until); // A step: nothing is read meanwhile.
    assert.deepEqual(await answered, { experiment_id: '1' });
  });
});
